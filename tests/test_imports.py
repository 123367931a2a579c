"""The architecture of docs/architecture.md: imports follow its arrows, without circles, and files keep to one subject."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from clgan_lib.paths import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf8")
FILES = sorted(path for package in ("clgan_lib", "baselines") for path in (ROOT / package).rglob("*.py"))
LINES, FUNCTION = 300, 40  # a file, and a function without its docstring


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Names of the project's modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES} - {module_name(path)}


def wing(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "baselines":
        return "baselines"
    if module == "clgan_lib.__main__":  # it starts the command line
        return "interop"
    package = ".".join(parts[:2])
    return parts[1] if len(parts) > 1 and MODULES[package].name == "__init__.py" else "core"


def test_imports_follow_the_arrows_of_the_page() -> None:
    allowed = set(re.findall(r"^  (\w+) --> (\w+)$", PAGE, re.M))
    arrows = {
        (wing(module), wing(other)): f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imported(path)
        if other != "clgan_lib" and wing(module) != wing(other)
    }
    assert allowed, "the page has no arrows"
    assert {arrow: where for arrow, where in arrows.items() if arrow not in allowed} == {}
    assert allowed - set(arrows) == set()  # the page promises no arrow that is not there


def test_there_is_no_circle() -> None:
    graph = {
        module: imported(path) - {"clgan_lib", ".".join(module.split(".")[:2])} for module, path in MODULES.items()
    }
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", sorted({wing(module) for module in MODULES} - {"core"}))
def test_each_wing_says_what_it_is_for(package: str) -> None:
    module = package if package == "baselines" else f"clgan_lib.{package}"
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf8")))
    assert f"| `{package}` |" in PAGE


def test_files_and_functions_are_short() -> None:
    long = [str(path.relative_to(ROOT)) for path in FILES if path.read_text(encoding="utf8").count("\n") > LINES]
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
                if (node.end_lineno or 0) - first.lineno >= FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []


def test_the_modules_and_functions_that_the_page_names_exist() -> None:
    for name in re.findall(r"`(\w+(?:\.\w+)+)`", PAGE):
        parts = name.split(".")
        if parts[-1] in ("md", "py", "json", "npz"):
            continue
        known = [
            part for part in (".".join(["clgan_lib", *parts[:n]]) for n in range(len(parts), 0, -1)) if part in MODULES
        ]
        assert known, name
        rest = parts[len(known[0].split(".")) - 1 :]
        source = MODULES[known[0]].read_text(encoding="utf8")
        assert all(re.search(rf"(def|class) {part}\b", source) for part in rest), name
