"""The lessons: checkers that know right from wrong, and notebooks that run with every exercise open or solved."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import execute_notebook
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.lab import exercises
from clgan_lib.paths import ROOT

LESSONS = ("02_losses", "04_training_step_by_step", "05_detection")
SMOKE = {
    "04_training_step_by_step": {"image_size": 32, "images": 4, "iterations": 1, "played": 5},
    "05_detection": {"experiment": "no such", "train_images": 8, "test_images": 8},
}


def nce(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(query @ key.detach().T / temperature, torch.arange(len(query)))


NCE_SLIPS: dict[str, Callable[..., object]] = {
    "temperature were missing": lambda q, k, t: nce(q, k, 1.0),
    "multiplied by the temperature": lambda q, k, t: nce(q, k, 1 / t),
    "sum over the queries": lambda q, k, t: nce(q, k, t) * len(q),
    "positive is missing": lambda q, k, t: (
        torch.logsumexp((q @ k.T / t).masked_fill(torch.eye(len(q)) > 0, -torch.inf), 1) - (q * k).sum(1) / t
    ).mean(),
    "sign": lambda q, k, t: -nce(q, k, t),
    "changed places": lambda q, k, t: nce(k, q, t),
    "no gradient reaches the query": lambda q, k, t: nce(q.detach(), k, t),
    "a gradient reaches the key": lambda q, k, t: F.cross_entropy(q @ k.T / t, torch.arange(len(q))),
    "shape": lambda q, k, t: (q * k).sum(1),
    "stopped with ZeroDivisionError": lambda q, k, t: 1 / 0,
    "On a small example": lambda q, k, t: nce(q, k, t) + 1,
}


@pytest.mark.parametrize(("hint", "answer"), NCE_SLIPS.items())
def test_each_slip_in_patch_nce_has_its_hint(hint: str, answer: Callable[..., object]) -> None:
    verdict = exercises.check("02.3", answer)
    assert verdict.correct is False and hint in verdict.message


RIGHT = {
    "02.1": math.log(256),
    "02.2": 0.5 / 0.07,
    "02.3": nce,
    "04.1": {"D"},
    "04.2": ["H", "G_enc", "G_dec"],
    "04.3": 0.693,
    "05.1": lambda k: 1 / (1 + k * k),
    "05.2": 3**0.5,
}


@pytest.mark.parametrize("exercise", RIGHT)
def test_right_answers_open_ones_and_nonsense(exercise: str) -> None:
    assert exercises.check(exercise, RIGHT[exercise]).correct is True
    assert exercises.check(exercise, None).correct is None
    assert exercises.check(exercise, "nonsense").correct is False


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("02.1", math.log(255), "Count the positive"),
        ("02.1", 8, "natural"),
        ("02.2", 0.5, "divided by τ"),
        ("02.2", -0.5 / 0.07, "sign"),
        ("04.1", {"D", "G_dec"}, "G_dec passes"),
        ("04.2", {"G_enc", "G_dec"}, "H moves too"),
        ("04.2", {"G"}, "'G' is no network"),
        ("04.3", 0.5, "minus|−log"),
        ("05.1", lambda k: 1 / k**2 if k else 1, "Chebyshev"),
        ("05.1", lambda k: 100 / (1 + k * k), "percent"),
        ("05.2", 2, "Chebyshev"),
        ("05.3", 3, "explorer itself"),
    ],
)
def test_wrong_answers_get_the_hint_that_helps(exercise: str, answer: object, hint: str) -> None:
    verdict = exercises.check(exercise, answer)
    assert verdict.correct is False and re.search(hint, verdict.message), verdict


def test_tuned_settings_must_beat_the_papers() -> None:
    scores = {"dual threshold, as set": {"F1": 40.0}, "dual threshold, the paper's": {"F1": 30.0}}
    explorer = SimpleNamespace(scores=scores, truth=np.ones(2))
    assert exercises.check("05.3", explorer).correct
    scores["dual threshold, as set"]["F1"] = 30.0
    assert "Try k1" in exercises.check("05.3", explorer).message
    explorer.truth = np.zeros(2)
    assert "no defect" in exercises.check("05.3", explorer).message


def test_verdicts_are_safe_to_show_and_unknown_exercises_named() -> None:
    verdict = exercises.check("02.3", lambda q, k, t: {}["<b>"])
    assert "<b>" not in verdict._repr_html_() and repr(verdict).startswith("Not yet. ")
    with pytest.raises(ValueError, match=r"'02\.9' is unknown; there are 02\.1"):
        exercises.check("02.9", 1)


@pytest.mark.parametrize("name", SMOKE)
def test_lessons_run_by_papermill(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With smoke settings, from another folder; each exercise is open when all is run, and each solution right."""
    monkeypatch.setenv("CLGAN_CACHE", str(tmp_path / "cache"))
    lesson = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    for cell in lesson.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.update(nbformat.v4.new_code_cell(solution(cell), id=cell.id))
    nbformat.write(lesson, tmp_path / "solved.ipynb")
    done = execute_notebook(tmp_path / "solved.ipynb", tmp_path / "done.ipynb", **SMOKE[name])
    assert judge(done) == {"Open.": 3, "Right.": 3}
    shown = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/svg+xml" in output.get("data", {}) for output in shown)  # a static figure beside each widget


def solution(cell: nbformat.NotebookNode) -> str:
    """The code that a folded solution shows."""
    return re.search(r"```python\n(.*)\n```", cell.source, re.DOTALL)[1]


def judge(notebook: nbformat.NotebookNode) -> dict[str, int]:
    """How many verdicts of each kind an executed notebook shows."""
    texts = [
        o["data"].get("text/plain", "")
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "data" in o
    ]
    return {word: sum(text.startswith(word) for text in texts) for word in ("Open.", "Right.")}


def test_the_losses_print_what_is_committed() -> None:
    """Strict nbval on 02_losses: every kept output comes out again, digit by digit, and every assertion holds.

    Digits are those of the versions in constraints.txt; with another torch only the assertions are held. After an edit to
    the notebook: ``python docs/refresh_notebooks.py 02_losses``.
    """
    pinned = f"torch=={version('torch').partition('+')[0]}" in (ROOT / "constraints.txt").read_text().split()
    path = ROOT / "notebooks" / "02_losses.ipynb"
    kept = [cell for cell in nbformat.read(path, 4).cells if "keep_output" in cell.metadata.get("tags", [])]
    compared = [cell for cell in kept if "nbval-ignore-output" not in cell.metadata.tags]  # the others are pictures
    assert len(compared) >= 12 and all(output.output_type == "stream" for cell in compared for output in cell.outputs)
    assert all(cell.outputs and cell.execution_count for cell in kept)  # others are not compared
    how = "--nbval" if pinned else "--nbval-lax"
    command = [sys.executable, "-m", "pytest", how, "--nbval-current-env", "--nbval-cell-timeout=120", str(path)]
    run = subprocess.run(
        [*command, "-q", "-p", "no:cacheprovider", "-p", "no:xdist"], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:]


@pytest.mark.parametrize("name", LESSONS)
def test_solutions_are_hidden_and_stand_with_their_exercise(name: str) -> None:
    """Folded, a solution shows nothing of the answer; it is text, so that *Run All* doesn't print it."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    exercised = [number for number, cell in enumerate(cells) if "= None\nexercises.check(" in cell.source]
    assert len(exercised) == 3 and sum("solution" in cell.metadata.get("tags", []) for cell in cells) == 3
    for place in exercised:
        task, answer = cells[place - 1], cells[place + 1]
        assert task.source.startswith("**Exercise ") and answer.cell_type == "markdown"
        assert answer.source.startswith("<details><summary>Solution: open to read</summary>\n\n```python\n")
        assert re.findall(r"exercises\.check.*", solution(answer))[0][:23] in cells[place].source  # the same exercise
    opening = cells[0].source
    assert all(words in opening for words in ("**You will learn**", "**It needs**", "**It takes**"))


@pytest.mark.parametrize("name", [*LESSONS, "00_start_here", "01_dataset", "03_networks"])
def test_a_lesson_ends_with_its_conclusion_in_two_sentences(name: str) -> None:
    title, _, words = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells[-1].source.partition("\n\n")
    assert title == "## In two sentences" and len(re.findall(r"[.](?= [A-Z]|$)", words)) == 2
