"""Every notebook runs top to bottom by papermill, from another folder, with smoke settings, and is committed clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_origin

import nbformat
import pytest
from conftest import execute_notebook
from papermill.exceptions import PapermillExecutionError
from papermill.inspection import inspect_notebook

from clgan_lib.paths import ROOT
from clgan_lib.runs.config import RunConfig

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMOKE_RUN = {
    "image_size": 32,
    "budget": 8,
    "embedded_train": 14,
    "embedded_test": 8,
    "options": {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2},
    "threads": 1,
    "category": "tile",
}


def execute(notebook: str, tmp_path: Path, **parameters: object) -> nbformat.NotebookNode:
    """Run a notebook in another working directory."""
    return execute_notebook(ROOT / "notebooks" / notebook, tmp_path / notebook, **parameters)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_clean_and_thin(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    assert "jupyter.widget-view" not in path.read_text()  # opened again, it would show an error
    assert path.stat().st_size <= 300_000, "python docs/refresh_notebooks.py makes its pictures smaller"
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            assert "keep_output" in tags or (not cell.outputs and cell.execution_count is None), cell.source
            assert cell.source.count("\n") < 25, cell.source
            assert "solution" in tags or not cell.source.startswith(("def ", "class ")), cell.source


@pytest.mark.parametrize("name", ["00_start_here", "01_dataset", "02_losses", "03_networks", "22_paper_audit"])
def test_notebooks_that_are_read_show_their_pictures(name: str) -> None:
    """On a code host and in the book; ``python docs/refresh_notebooks.py`` runs them and keeps their outputs."""
    cells = [c for c in nbformat.read(ROOT / f"notebooks/{name}.ipynb", 4).cells if c.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/javascript" not in kinds and kinds & {"image/png", "image/jpeg", "image/svg+xml"}
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) / 2


def test_the_parameters_of_10_train_are_the_fields_of_a_run() -> None:
    found = inspect_notebook(str(ROOT / "notebooks/10_train.ipynb"))
    assert set(found) == set(RunConfig.model_fields)
    for name, field in RunConfig.model_fields.items():
        kind = found[name]["inferred_type_name"]
        outer = get_origin(field.annotation) or field.annotation  # dict[str, Any] -> dict
        assert kind == ("str" if outer is Literal else outer.__name__), name


def sentences(notebook: nbformat.NotebookNode) -> list[str]:
    """The prose among the outputs."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]


@pytest.mark.parametrize(
    ("notebook", "parameters"),
    [
        ("00_start_here.ipynb", {"images": 8, "width": 4}),
        ("01_dataset.ipynb", {"categories": ["tile"], "embedded_train": 14, "embedded_test": 8}),
        ("03_networks.ipynb", {"image_size": 64, "width": 16}),
        ("22_paper_audit.ipynb", {}),
        ("23_ablation.ipynb", {}),
        ("24_training_length.ipynb", {}),
    ],
)
def test_lessons_run_top_to_bottom(notebook: str, parameters: dict, tmp_path: Path) -> None:
    own = {"results_root": str(tmp_path)} if notebook.startswith(("00", "23", "24")) else {}
    executed = execute(notebook, tmp_path, **parameters, **own)
    if not parameters and (kept := sentences(nbformat.read(ROOT / "notebooks" / notebook, 4))):
        assert sentences(executed) == kept, f"python docs/refresh_notebooks.py {notebook.removesuffix('.ipynb')}"


def test_30_inspects_a_folder_of_ones_own(tiny_root: Path, tmp_path: Path) -> None:
    folders = {"good": str(tiny_root / "nut/train/good"), "images": str(tiny_root / "nut/test")}
    small = {"options": {"width": 4, "batch_size": 2}, "image_size": 32, "seconds": 1.0, "onnx": False}
    done = execute("30_detect_your_own.ipynb", tmp_path, **folders, **small, results_root=str(tmp_path / "r"))
    shown = [str(output.get("text") or output.get("data")) for cell in done.cells for output in cell.get("outputs", [])]
    assert "readiness: the model was judged by 1 held-out" in "".join(shown)
    (table,) = (text for text in shown if "marked_percent" in text)
    assert "verdict" not in table and "image_score" in table  # none from a model that is not fit for use
    out = tmp_path / "r/own/inspection"
    assert len(list((out / "overlays").rglob("*.jpg"))) == 7 and (out / "scores.csv").is_file()
    with pytest.raises(PapermillExecutionError, match="images: name the folder to inspect"):
        execute("30_detect_your_own.ipynb", tmp_path, good=folders["good"])


def test_30_runs_without_any_images(tmp_path: Path) -> None:
    small = {"options": {"width": 4, "batch_size": 2}, "image_size": 32, "seconds": 1.0}
    execute("30_detect_your_own.ipynb", tmp_path, **small, results_root=str(tmp_path / "r"))
    assert len(list((tmp_path / "r").rglob("model.onnx"))) == 1


def test_10_train_writes_a_run(tmp_path: Path) -> None:
    execute("10_train.ipynb", tmp_path, **SMOKE_RUN, results_root=str(tmp_path / "results"))
    folder = tmp_path / "results/scratch/clgan/tile/seed0"
    assert json.loads((folder / "metrics.json").read_text())["config"]["category"] == "tile"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"imagesize": 32}, "'imagesize' is not a parameter; did you mean 'image_size'"),
        ({"category": "../x"}, "cannot name a folder"),
        ({"data_root": "/nowhere"}, "/nowhere is not a folder"),
        ({"k": -1.0}, "k: .* got -1.0"),
    ],
)
def test_10_train_refuses_what_cannot_be(tmp_path: Path, parameters: dict, words: str) -> None:
    with pytest.raises(PapermillExecutionError) as caught:
        execute("10_train.ipynb", tmp_path, **{**SMOKE_RUN, **parameters}, results_root=str(tmp_path / "results"))
    import re

    assert re.search(words, f"{caught.value.ename}: {caught.value.evalue}")
    assert not list(tmp_path.rglob("metrics.json"))
