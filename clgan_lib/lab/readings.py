"""How the paper is read where it is open or contradicts itself, and what its symbols are called here.

The words are in ``docs/readings.csv`` and ``docs/symbols.csv``. Arguments and defaults are looked up in the code, so that
no table can name an argument that is gone or a default that has changed.
"""

import ast
import dataclasses
import importlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler

from clgan_lib.paths import ROOT
from clgan_lib.runs.experiment import Experiment

DOCS = ROOT / "docs"
LITERAL = "mvtec_literal"  # the experiment that follows the paper to the letter
_NONE = inspect.Parameter.empty


def open_points() -> pd.DataFrame:
    """Every open point of the paper.

    Returns:
        A row per point: ``part`` of the paper, ``point``, ``kind`` (silent, open, contradicts itself, slip, explicit), the
        ``paper``'s words and their ``english``. Then our ``reading``, the ``name`` in the code that settles it, and its
        ``default`` ("" where there is nothing to choose). Last the setting of the ``literal`` recipe, where it differs.
    """
    frame = _read("readings")
    recipe = Experiment.load(LITERAL)
    category = next(iter(recipe.leave_out), recipe.categories[0])  # one that has all that the recipe sets
    literal = recipe.run("clgan", category, recipe.seeds[0]).model_dump(exclude_defaults=True)
    columns: dict[str, list[str]] = {"name": [], "default": [], "literal": []}
    for where, arguments in zip(frame["where"], frame["argument"], strict=True):
        names, label = arguments.split(), where.partition(":")[2]
        defaults = {name: _default(where, name) for name in names}
        values = {**literal, **literal.get("options", {})} if where.endswith((":CLGAN", ":RunConfig")) else {}
        columns["name"].append(f"{label}({', '.join(names)})" if names else label)
        columns["default"].append(_settings({n: v for n, v in defaults.items() if v is not _NONE}))
        columns["literal"].append(_settings({n: values[n] for n in names if n in values}))
    return frame.drop(columns=["where", "argument"]).assign(**columns)


def symbols() -> pd.DataFrame:
    """The paper's ``symbol`` (HTML), its ``meaning``, and its ``name`` here: an argument, a field, or a whole function."""
    frame = _read("symbols")
    names = []
    for where, argument in zip(frame["where"], frame["argument"], strict=True):
        owner, label = _look_up(where), where.partition(":")[2]
        if argument:
            _default(where, argument)
            label += f".{argument}" if dataclasses.is_dataclass(owner) else f"({argument})"
        names.append(label)
    return frame.drop(columns=["where", "argument"]).assign(name=names)


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


def _look_up(where: str) -> Any:
    """What ``module:Class.method`` stands for; ``ValueError`` if there is no such thing."""
    module, _, path = where.partition(":")
    try:
        thing: Any = importlib.import_module(module)
        for name in path.split("."):
            thing = getattr(thing, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where} does not exist ({error}); correct it in {DOCS.name}/") from None
    return thing


def _default(where: str, argument: str) -> Any:
    """The default of a function's argument or a dataclass's field, `_NONE` without one; ``ValueError`` if there is none."""
    owner = _look_up(where)
    parameters = inspect.signature(owner).parameters
    if argument not in parameters:
        raise ValueError(f"{where} has no argument {argument!r}; correct it in {DOCS.name}/")
    fields = getattr(owner, "model_fields", {})  # pydantic's signature hides what a default factory gives
    if argument in fields and not fields[argument].is_required():
        return fields[argument].get_default(call_default_factory=True)
    return parameters[argument].default


def as_html(frame: pd.DataFrame) -> Styler:
    """One part of `open_points`, laid out for a notebook: the paper's words over their translation, code as code."""
    said = [
        f"{escape(words)}<br><i>{escape(english)}</i>" if words else f"<i>{escape(english) or 'says nothing'}</i>"
        for words, english in zip(frame["paper"], frame["english"], strict=True)
    ]
    code = [
        f"<code>{escape(name).replace('(', '(<wbr>')}</code>" + (f"<br>{escape(value)}" if value else "")
        for name, value in zip(frame["name"], frame["default"], strict=True)
    ]
    shown = pd.DataFrame(
        {
            "point": [f"<b>{escape(p)}</b><br>{k}" for p, k in zip(frame["point"], frame["kind"], strict=True)],
            "the paper": said,
            "our reading": frame["reading"].map(escape),
            "in the code": code,
            "literal recipe": frame["literal"].map(escape),
        }
    )
    return laid_out(shown, ["13%", "25%", "32%", "18%", "12%"])


def source(function: Callable[..., Any], equations: Mapping[str, str]) -> HTML:
    """A function's code without its docstring, the equations beside their lines.

    Args:
        function: of the library.
        equations: by a piece of code, what stands beside the first line that holds it; text, with LaTeX between dollars.

    Raises:
        ValueError: naming a piece that no line holds: the code has changed.
    """
    text = textwrap.dedent(inspect.getsource(function))
    lines, first = text.splitlines(), ast.parse(text).body[0].body[0]  # type: ignore[attr-defined]
    del lines[first.lineno - 1 : first.end_lineno]
    beside = {}
    for piece, words in equations.items():
        place = next((number for number, line in enumerate(lines) if piece in line), None)
        if place is None:
            raise ValueError(f"equations: no line of {function.__name__} holds {piece!r}; it has been changed")
        beside[place] = words
    left, code = "text-align: left; padding: 0 1em", "white-space: pre-wrap; background: none; font-size: 12px"
    rows = "".join(
        f"<tr style='background: {'rgba(86, 180, 233, .25)' if number in beside else 'none'}'><td style='{left}'>"
        f"<code style='{code}'>{escape(line) or ' '}</code></td><td style='{left}'>{beside.get(number, '')}</td></tr>"
        for number, line in enumerate(lines)
    )
    return HTML(f"<table>{rows}</table>")


def laid_out(frame: pd.DataFrame, widths: list[str]) -> Styler:
    """A table of sentences with columns of given widths; cells may hold HTML."""
    left = "text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere"
    rules: list[Any] = [{"selector": "th, td", "props": left}, {"selector": "", "props": "width: 100%"}]
    rules += [{"selector": f"th.col{i}", "props": f"width: {width}"} for i, width in enumerate(widths)]
    return frame.style.hide().set_table_styles(rules)


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(DOCS / f"{name}.csv", keep_default_na=False)
