"""Mutation testing, small: each operator and number of a module is changed once, and its own tests must notice.

    python benchmarks/mutants.py [losses detection metrics]

A change that no test notices is printed as a survivor: a line, and what it was turned into. docs/trust.md explains those
that are left. One process per mutant is forked from one that has the heavy imports behind it, and loads no plugin.
"""

import ast
import copy
import gc
import importlib
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("losses", "detection", "metrics")
PATIENCE = 60  # seconds of computing, whatever else the machine does; a mutant that runs longer is noticed, too
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.USub: ast.UAdd, ast.MatMult: ast.Mult,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """Every mutant of a module: what was changed, and the changed tree."""
    tree = ast.parse(source)
    for index, node in enumerate(_code(tree)):
        for number, words in enumerate(_changes(node)):
            changed = copy.deepcopy(tree)
            twin = list(_code(changed))[index]
            _apply(twin, number)
            yield f"line {getattr(node, 'lineno', 0)}: {words}", ast.fix_missing_locations(changed)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: no annotation, no text of a message."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from _code(child)


def _changes(node: ast.AST) -> list[str]:
    """What can be changed about one node."""
    operator = getattr(node, "op", None) or (getattr(node, "ops", None) or [None])[0]
    if type(operator) in SWAPS and isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp):
        return [f"{ast.unparse(node)!r}, {type(operator).__name__} becomes {SWAPS[type(operator)].__name__}"]
    if isinstance(operator, ast.Not | ast.Invert):
        return [f"{ast.unparse(node)!r} without its {type(operator).__name__}"]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        return [f"{node.value!r} becomes {_other(node.value)!r}"]
    if isinstance(node, ast.IfExp):
        return [f"{ast.unparse(node)!r} with its two sides swapped"]
    return []


def _other(value: float) -> float:
    return not value if isinstance(value, bool) else value + 1


def _apply(node: ast.AST, number: int) -> None:
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        node.op = ast.UAdd()  # bool(+x) is bool(x) for numbers; for arrays it is an error, which is noticed
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp):
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant):
        node.value = _other(node.value)
    elif isinstance(node, ast.IfExp):
        node.body, node.orelse = node.orelse, node.body


def survives(name: str, tree: ast.Module) -> bool:
    """Whether the module's own tests pass with the mutant in its place."""
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            module = types.ModuleType(f"clgan_lib.{name}")
            module.__file__ = str(ROOT / "clgan_lib" / f"{name}.py")
            sys.modules[module.__name__] = module
            exec(compile(tree, module.__file__, "exec"), module.__dict__)
            setattr(importlib.import_module("clgan_lib"), name, module)
            import pytest

            tests = str(ROOT / "tests" / f"test_{name}.py")
            code = pytest.main([tests, "-xq", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull])
        except BaseException:
            code = 1
        os._exit(int(code))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> int:
    """Print the survivors of each module; returns how many there are."""
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for heavy in ("numpy", "torch", "cv2", "scipy.ndimage", "sklearn.metrics", "PIL.Image", "pytest", "hypothesis"):
        importlib.import_module(heavy)
    importlib.import_module("torch").set_num_threads(1)
    gc.freeze()  # no child need look through what it was born with
    total = 0
    for name in sys.argv[1:] or MODULES:
        begin = time.monotonic()
        source = (ROOT / "clgan_lib" / f"{name}.py").read_text(encoding="utf8")
        if not survives(name, ast.parse(source)):
            sys.exit(f"tests/test_{name}.py fails without any mutant; mend that first")
        made = list(mutants(source))
        left = 0
        for words, tree in made:
            if survives(name, tree):
                left += 1
                print(f"  {name}, {words}", flush=True)
        print(f"{name}: {len(made)} mutants, {left} survive, {time.monotonic() - begin:.0f} s", flush=True)
        total += left
    return min(total, 100)


if __name__ == "__main__":
    sys.exit(main())
