"""Files and names from strangers: nothing is unpickled, no parameter becomes code, nothing reaches a shell."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from clgan_lib.paths import ROOT
from clgan_lib.runs.config import RunConfig

# What would run code from a file, or read more than data from it.
FORBIDDEN = {
    *("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "eval", "exec"),
    *(
        "torch.load",
        "torch.save",
        "np.loads",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "os.system",
        "os.popen",
    ),
}
NASTY = [
    "$(touch sprung)",
    '"; import os; os.mkdir("sprung"); "',
    "'''\nimport os\n'''",
    "`touch sprung`",
    "a\\",
    "{x}",
    "é\u2028",
]


# Reads the weights of another package, which exist as a pickle alone: torch's reader then knows tensors and nothing else.
WEIGHTS = "benchmarks/features.py"


def sources() -> list[tuple[str, str]]:
    """Every piece of the project's code: modules, and the code cells of notebooks."""
    files = [
        *(ROOT / "clgan_lib").rglob("*.py"),
        *(ROOT / "baselines").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]
    found = [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf8")) for path in files]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        found += [(path.name, cell.source) for cell in cells if cell.cell_type == "code"]
    return found


def dotted(node: ast.AST) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def offences(name: str, text: str) -> list[str]:
    """Calls and imports that would unpickle, evaluate or pass through a shell."""
    found = []
    for node in ast.walk(ast.parse(text)):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name.split(".")[0] for alias in node.names} | {
                (getattr(node, "module", "") or "").split(".")[0]
            }
            found += [f"{where} imports {module}" for module in modules & FORBIDDEN]
        if isinstance(node, ast.Call):
            called, keywords = dotted(node.func), {k.arg: k.value for k in node.keywords}
            if name == WEIGHTS and ast.unparse(node).endswith(", weights_only=True)") and called == "torch.load":
                continue
            if called in FORBIDDEN or called.rpartition(".")[2] in ("read_pickle", "to_pickle"):
                found.append(f"{where} calls {called}")
            for key in ("allow_pickle", "shell"):
                if key in keywords and not (isinstance(keywords[key], ast.Constant) and not keywords[key].value):  # type: ignore[union-attr]
                    found.append(f"{where} passes {key}")
            if called == "np.load" and "allow_pickle" not in keywords:
                found.append(f"{where} calls np.load without allow_pickle=False")
    return found


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    code = sources()
    assert len(code) > 60
    # The mutation benchmark compiles this project's own source; a notebook's %magic is no Python.
    allowed = {"benchmarks/mutants.py"}
    assert [o for name, text in code if name not in allowed and "%" not in text[:1] for o in offences(name, text)] == []


CAUGHT = ("import pickle", "x = torch.load(f)", "np.load(f)", "np.load(f, allow_pickle=True)", "run(c, shell=True)",
          "from joblib import load", "eval('1')", "df.to_pickle(f)")  # fmt: skip


@pytest.mark.parametrize("line", CAUGHT)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert offences("x", line)
    assert offences(WEIGHTS, line)


def test_one_file_may_read_tensors_from_a_pickle_and_only_tensors() -> None:
    assert not offences(WEIGHTS, "x = torch.load(f, weights_only=True)")
    for name, text in ((WEIGHTS, "torch.load(f, weights_only=False)"), ("x", "torch.load(f, weights_only=True)")):
        assert offences(name, text)


@pytest.mark.parametrize("value", NASTY)
def test_a_notebook_s_parameter_stays_a_value(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What papermill writes into the notebook evaluates to the very value, as text, as key and inside lists."""
    monkeypatch.chdir(tmp_path)
    notebook = load_notebook_node(str(ROOT / "notebooks/10_train.ipynb"))
    parameters = {"category": value, "options": {value: [value, {"a": value}]}, "leave_out": [value]}
    made = parameterize_notebook(notebook, parameters)
    (cell,) = (c for c in made.cells if "injected-parameters" in c.metadata.get("tags", []))
    names: dict[str, object] = {}
    exec(compile(cell.source, "injected", "exec"), names)
    assert {key: names[key] for key in parameters} == parameters
    assert not any(tmp_path.iterdir())


def test_a_parameter_s_name_cannot_bring_code_into_the_grid(tmp_path: Path) -> None:
    """papermill writes names as they are; the settings of an experiment are fields of a run or refused before that."""
    with pytest.raises(ValueError, match="is not a parameter"):
        RunConfig(**{"k=1\nimport os\nos.mkdir('sprung')\nx": 1})


GRID = {
    "title": "names that a shell would read", "categories": ["o'ring & co", "two words"], "seeds": [0],
    "settings": {"image_size": 32, "results_root": "results", "device": "$(touch sprung)`touch sprung`' \" ; touch sprung"},
    "models": {"blur": {"options": {"sigma": 0.1, "$(touch sprung)": "'; touch sprung; '"}}},
}  # fmt: skip


def test_no_name_or_setting_reaches_the_shell_of_the_grid(tmp_path: Path) -> None:
    """Snakemake's own command lines, printed, parsed by a shell that only echoes its words."""
    categories = [name.replace("&", "+") for name in GRID["categories"]]
    (tmp_path / "g.yaml").write_text(yaml.safe_dump({**GRID, "categories": categories}))
    for name in ("Snakefile", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--printshellcmds",
        "--cores",
        "1",
        "--config",
        "experiment=g.yaml",
    ]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    marks = [
        line
        for line in printed.splitlines()
        if " -m clgan_lib.runs.notebook " in line or line.strip().startswith("echo FAILED")
    ]
    assert len(marks) == 4, printed
    for line in marks:
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {harmless(line)}"], cwd=tmp_path, capture_output=True, text=True
        )
        found = words.stdout.split("\0")
        if "clgan_lib.runs.notebook" in line:
            settings = yaml.safe_load(next(word for word in found if word.startswith("{")))
            assert settings["device"] == GRID["settings"]["device"] and settings["category"] in categories  # type: ignore[index]
        else:
            assert any(name in " ".join(found) for name in ("o'ring + co,", "two words,")), found
    assert not (tmp_path / "sprung").exists()


def harmless(line: str) -> str:
    """The words of one line of the recipe, without where its output goes."""
    return line.partition(" > 'results/")[0].strip().removesuffix(">&2")
