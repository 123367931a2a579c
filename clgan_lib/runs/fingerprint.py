"""A hash of the code that training runs through: it changes with the code, and not with its prose."""

import ast
import hashlib
import inspect
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from clgan_lib.model import find_model
from clgan_lib.paths import ROOT

# What every training runs through, beside the model's own module.
TRAINING_MODULES = ("clgan_lib.checkpoint", "clgan_lib.synthetic", "clgan_lib.training")


def training_code(model: str) -> str:
    """SHA-256 over the code that training runs through, without comments and docstrings.

    It follows every import of the modules in `TRAINING_MODULES` and of the model's class and its base classes: within this
    repository and within the folder that holds the model's package. An edit to a figure or to prose reruns no training.
    """
    classes = [c for c in find_model(model).__mro__ if _top(c.__module__) not in {"torch", *sys.stdlib_module_names}]
    sources = _with_imports([*TRAINING_MODULES, *(c.__module__ for c in classes)], sorted({ROOT, *map(_root, classes)}))
    return hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()


def _with_imports(modules: list[str], roots: list[Path]) -> dict[str, str]:
    """The code of modules, of their packages, and of all that these import below the roots, by module name."""
    sources: dict[str, str] = {}
    own = {_top(name) for name in modules}
    while modules:
        name = modules.pop()
        if above := name.rpartition(".")[0]:
            modules.append(above)  # a package runs before its modules
        places = [root for root in roots if _top(name) in own or root.name not in ("site-packages", "dist-packages")]
        path = Path(*name.split("."))
        files = [place / file for place in places for file in (path / "__init__.py", path.with_suffix(".py"))]
        file = next(filter(Path.is_file, files), None)
        if file and name not in sources:
            package = name if file.stem == "__init__" else above
            sources[name], imported = _code_and_imports(file.read_text(encoding="utf8"), package)
            modules += imported
    return sources


@lru_cache(maxsize=256)
def _code_and_imports(source: str, package: str) -> tuple[str, tuple[str, ...]]:
    """A module's code without comments and docstrings, and the names of all that it may import."""
    tree, imported = ast.parse(source), list[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            imported += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):  # of statements: one that is only a text is prose
                setattr(node, field, [part for part in value if not _is_prose(part)])
    return ast.unparse(tree), tuple(filter(None, imported))


def _is_prose(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _top(module: str) -> str:
    """The name of a module's outermost package."""
    return module.partition(".")[0]


def _root(cls: type) -> Path:
    """The folder that holds the outermost package of a class."""
    file = Path(inspect.getfile(cls))
    return file.parents[cls.__module__.count(".") + (file.stem == "__init__")]
