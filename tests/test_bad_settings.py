"""Impossible settings, experiments and damaged run folders: one error that names the culprit."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_nuts
from fake_runs import fake_run
from test_bad_input import config, one_line

from clgan_lib.exhibits import examples, run_table, tables
from clgan_lib.model import MODELS, find_model
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig, check_options
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.maps import read_maps

# --- parameters and experiments ---------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "seed": [-1, 2**32, 10**30, 0.5, "0", None, True],
    "image_size": [-1, 0, 15, 1025, 10**12, 64.0, "64", None],
    "budget": [-1, float("nan"), float("inf"), "much", None],
    "holdout": [-1, 0, 1, 2.5, None],
    "quantile": [-1, 0, 1, 1e308, float("nan")],
    "k": [-1, float("nan"), float("inf"), "3"],
    "threads": [-1, 10**9, 1.5],
    "embedded_train": [-1, 0, 1, 10**9],
    "embedded_test": [-1, 0, 10**9],
    "checkpoint_seconds": [-1, float("nan")],
    "budget_unit": ["years", "", None, 3],
    "precision": ["float8", None],
    "symmetry": ["", "mirror", None],
    "options": [
        [],
        "x",
        None,
        {"a": float("nan")},
        {"a": {"b": float("inf")}},
        {"a": {1}},  # a set is no JSON
        {1: 2},
        {"a": [10**9]},
    ],
    "leave_out": ["flip", None, [1]],
    "data_root": ["\0", "a\nb", None, 3],
    "results_root": ["\0", None],
    "crop": ["yes", 1, None],
    "compiled": ["yes", 1, None],
    "device": [None, 0],
    "model": ["", None, 3, "x" * 101],
    "category": ["x" * 101, "試" * 34],  # 102 bytes
    "experiment": ["x" * 101],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in IMPOSSIBLE.items() for v in values], ids=str)
def test_impossible_parameters_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        RunConfig(**{name: value})
    one_line(caught.value)


def test_a_truth_value_in_small_letters_from_papermills_command_line_is_told_the_spelling() -> None:
    with pytest.raises(ValueError, match="^crop: expected True or False, got 'true'$"):
        RunConfig(crop="true")  # type: ignore[arg-type]


def options() -> list[tuple[str, str, object]]:
    """Every option of every model with values it can't have."""
    wrong: list[tuple[str, str, object]] = []
    for model in MODELS:
        for name in set(inspect.signature(find_model(model).__init__).parameters) - {"self", "image_size"}:
            wrong += [(model, name, value) for value in (-1, -0.5, "text", [1], {"a": 1})]
    return sorted(wrong, key=str)


def test_impossible_options_of_every_model_are_refused_by_name() -> None:
    cases = options()
    assert len(cases) > 150
    for model, name, value in cases:
        with pytest.raises(ValueError, match=f"options.{name}: ") as caught:
            check_options(model, {name: value})
        one_line(caught.value)


@pytest.mark.parametrize("fields", [{"options": {"width": 2**16}}, {"options": {"width": 0}}, {"options": {"patches": 0}},
                                    {"options": {"learning_rate": 1e30}}, {"image_size": 33}])  # fmt: skip
def test_what_only_building_or_training_shows_is_one_line_too(fields: dict, tiny_root: Path) -> None:
    small = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}
    settings = config(tiny_root, **{"model": "clgan", **fields, "options": {**small, **fields.get("options", {})}})
    with pytest.raises((ValueError, ArithmeticError, MemoryError)) as caught:
        execution.execute(settings)
    one_line(caught.value)
    assert not (settings.folder / "metrics.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected fields"),
        ("categories: []\nmodels: {blur: {}}", "at least one entry"),
        ("categories: [a]\nmodels: {}", "at least one entry"),
        ("categories: [a]\nseeds: []\nmodels: {blur: {}}", "at least one entry"),
        ("categories: [a]\nseeds: [-1]\nmodels: {blur: {}}", "seed"),
        ("categories: [a]\nseeds: ['0']\nmodels: {blur: {}}", "seeds"),
        ("categories: [1]\nmodels: {blur: {}}", "categories"),
        ("categories: ['$(id)']\nmodels: {blur: {}}", "cannot name a folder"),
        ("categories: [a]\nmodels: [blur]", "models"),
        ("categories: [a]\nmodels: {blur: 3}", "models.blur"),
        ("categories: [a]\nmodels: {'../x:Y': {}}", "is no name"),
        ("categories: [a]\nmodels: {blur: {}}\nsettings: {k: .nan}", "k: "),
        ("categories: [a]\nmodels: {blur: {}}\nsettings: 3", "bad.yaml"),
        ("categories: [a]\nmodels: {blur: {}}\nleave_out: {a: dent}", "leave_out"),
        ("categories: !!python/object/apply:os.system ['true']\nmodels: {blur: {}}", "is not valid YAML"),
        ("[" * 1500, "bad.yaml"),
        ("a: \x07", "bad.yaml"),
    ],
)
def test_bad_experiments_name_the_file(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        Experiment.load(tmp_path / "bad.yaml")
    assert "bad.yaml" in one_line(caught.value)


def test_an_experiment_in_another_encoding_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes("categories: [Gewürz]".encode("utf-16"))
    with pytest.raises(ValueError, match="bad.yaml") as caught:
        Experiment.load(tmp_path / "bad.yaml")
    one_line(caught.value)


# --- run folders ------------------------------------------------------------------------------------------------------

EDITS: dict[str, tuple[Callable[[dict], object], str]] = {
    "another format": (lambda m: m.update(format=2), "format 2"),
    "no format": (lambda m: m.pop("format"), "damaged"),
    "no scores": (lambda m: m.pop("scores"), "lacks 'scores'"),
    "scores of another kind": (lambda m: m.update(scores=[1]), "scores is '[1]'"),
    "F1 as text": (lambda m: m["scores"]["calibrated"]["pooled"].update(F1="99"), "F1 is '99'"),
    "F1 above 100": (lambda m: m["scores"]["dual_threshold"]["image"].update(F1=101.0), "F1 is '101.0'"),
    "F1 null": (lambda m: m["scores"]["dual_threshold"]["image"].update(F1=None), "F1 is 'None'"),
    "F1 NaN": (lambda m: m["scores"]["dual_threshold"]["image"].update(F1=float("nan")), "NaN is no number"),
    "AUROC above 1": (lambda m: m["ranking"].update(AUROC=1.01), "AUROC is '1.01'"),
    "another seed": (lambda m: m["config"].update(seed=5), "belongs to fake, clgan, bottle, seed 5"),
    "another model": (lambda m: m["config"].update(model="blur"), "belongs to fake, blur"),
    "a seed as text": (lambda m: m["config"].update(seed="0"), "seed is '0'"),
    "a model as a list": (lambda m: m["config"].update(model=["clgan"]), "model is"),
    "no environment": (lambda m: m.pop("env"), "lacks 'env'"),
    "a negative time": (lambda m: m["time"].update(train_s=-1), "train_s is '-1'"),
    "left_out as a number": (lambda m: m.update(left_out=3), "left_out is '3'"),
}


@pytest.mark.parametrize("how", EDITS)
def test_edited_metrics_are_refused_and_the_others_still_count(how: str, tmp_path: Path) -> None:
    fake_run(tmp_path, "template", "bottle", maps=False)
    path = fake_run(tmp_path, "clgan", "bottle", maps=False) / "metrics.json"
    content = json.loads(path.read_text())
    edit, words = EDITS[how]
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="clgan/bottle/seed0/metrics.json is not used"):
        frame = tables.collect(tmp_path, "fake")
    (note,) = frame.attrs["notes"]
    assert words in note and "\n" not in note and str(tmp_path) not in note
    assert frame.loc[frame["finished"], "model"].unique().tolist() == ["template"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one small run."""
    root = draw_nuts(tmp_path_factory.mktemp("finished"))
    execution.execute(config(root, model="template", options={"neighbours": 2}))
    return Path(root / "results")


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage: the run's folder."""
    return Path(shutil.copytree(finished, tmp_path / "results")) / "scratch/template/nut/seed0"


@pytest.mark.parametrize("lost", ["maps.npz", "scores.csv", "weights.safetensors", "history.csv", "metrics.json"])
def test_half_of_a_run_folder_serves_for_what_it_can(lost: str, own: Path) -> None:
    folder, root = own, own.parents[3]
    (folder / lost).unlink()
    frame = tables.collect(root, "scratch", [("template", "nut", 0)])
    assert bool(frame["finished"].all()) == (lost != "metrics.json")
    assert tables.table3(frame).markdown()
    needs = {"maps.npz": lambda: read_maps(folder), "weights.safetensors": lambda: execution.load_model(folder),
             "metrics.json": lambda: execution.load_model(folder)}  # fmt: skip
    for name, read in needs.items():
        if name == lost:
            with pytest.raises(FileNotFoundError, match=lost) as caught:
                read()
            one_line(caught.value)
    if lost == "scores.csv":
        assert run_table.read_scores(root, frame).empty


@pytest.mark.parametrize("name", ["maps.npz", "weights.safetensors", "scores.csv"])
@pytest.mark.parametrize("how", ["cut short", "emptied", "text", "of another run"])
def test_damaged_files_of_a_run_are_named(name: str, how: str, own: Path) -> None:
    path, root = own / name, own.parents[3]
    content = path.read_bytes()
    other = {"maps.npz": b"PK\x05\x06" + bytes(18), "weights.safetensors": b"\x02" + bytes(7) + b"{}"}.get(
        name, b"a,b\n1,2\n"
    )
    damage = {
        "cut short": content[: len(content) // 2],
        "emptied": b"",
        "text": b"hello\nworld\n",
        "of another run": other,
    }
    path.write_bytes(damage[how])
    frame = tables.collect(root, "scratch")
    read = {
        "maps.npz": lambda: read_maps(own, ["names", "images"]),
        "weights.safetensors": lambda: execution.load_model(own),
        "scores.csv": lambda: run_table.read_scores(root, frame),
    }[name]
    if name == "scores.csv" and how == "cut short":
        read()  # whole lines that are left are still whole lines
        return
    with pytest.raises(ValueError, match=name) as caught:
        read()
    one_line(caught.value)


def test_damaged_maps_leave_a_hole_in_the_pictures(tmp_path: Path) -> None:
    for model in ("clgan", "template"):
        fake_run(tmp_path, model)
    path = tmp_path / "fake/clgan/bottle/seed0/maps.npz"
    path.write_bytes(path.read_bytes()[:1000])
    frame = tables.collect(tmp_path, "fake")
    with pytest.warns(UserWarning, match="clgan/bottle/seed0/maps.npz is damaged"):
        (example,) = examples.examples(tmp_path, frame)
    assert example.reference == "template" and example.masks["template"] is not None
    assert example.masks["clgan"] is None and example.reconstructions["clgan"] is None


def test_a_pickle_where_maps_should_be_is_not_opened(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    folder = fake_run(tmp_path)
    (folder / "maps.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="maps.npz is damaged"):
        read_maps(folder)
    np.savez(folder / "maps.npz", names=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match="maps.npz is damaged"):
        read_maps(folder)
    assert not (tmp_path / "sprung").exists()


def head_without(field: str) -> Callable[[bytes], bytes]:
    """A checkpoint whose head names that field otherwise; its length stays, so safetensors can read it."""
    return lambda content: content.replace(field.encode(), field[::-1].encode(), 1)


@pytest.mark.parametrize(
    "field", ["steps", "weights/generator", "training/", "random/cpu", "history", "fingerprint", "format"]
)
def test_an_edited_checkpoint_is_left_and_the_run_starts_afresh(field: str, tiny_root: Path) -> None:
    small = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}
    settings = config(tiny_root, model="clgan", options=small, checkpoint_seconds=0.0)
    expected = execution.train_run(first := execution.start_run(settings))
    path = settings.folder / "checkpoint/last.safetensors"
    path.write_bytes(head_without(field)(path.read_bytes()))
    again = execution.start_run(settings)
    assert execution.train_run(again).steps == expected.steps
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again.lock.release()
