"""Whatever stands in a file of a stranger, it is read or refused in one line."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runs import fake_run
from hypothesis import given
from hypothesis import strategies as st

from clgan_lib.exhibits import tables
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record

LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=12))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def refused_or_fine(work: Any, *also: type[Exception]) -> None:
    """Whatever the input, it works or raises what the docstring says, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except (ValueError, *also) as error:
        assert "\n" not in str(error).strip() and len(str(error)) > 5, error


@given(st.dictionaries(st.sampled_from(sorted(RunConfig.model_fields)) | st.text(max_size=8), VALUES, max_size=4))
def test_any_settings_are_a_config_or_refused(fields: dict[str, Any]) -> None:
    def build() -> None:
        config = RunConfig(**fields)
        assert RunConfig.model_validate_json(config.model_dump_json()) == config
        root = Path(config.results_root or "results")
        assert (
            config.folder.relative_to(root).parts[:1] == (config.experiment,) and ".." not in config.folder.parts[-4:]
        )

    refused_or_fine(build)


GRID = {
    "title": "t",
    "categories": ["tile"],
    "seeds": [0],
    "settings": {"k": 2.0},
    "models": {"blur": {}},
    "leave_out": {},
}


def changed(content: Any, draw: st.DrawFn) -> Any:
    """A copy with one value, anywhere, replaced or removed."""
    content = copy.deepcopy(content)
    place, path = content, []
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        path.append((place, draw(st.sampled_from(keys))))
        place = place[path[-1][1]]
        if draw(st.integers(0, 3)) == 0:
            break
    holder, key = path[-1]
    if draw(st.booleans()) and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw(VALUES)
    return content


@st.composite
def experiments(draw: st.DrawFn) -> str:
    text = yaml.safe_dump(changed(GRID, draw), allow_unicode=True)
    return text if draw(st.booleans()) else draw(st.text(max_size=60))


@given(experiments())
def test_any_experiment_file_is_read_or_refused(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e.yaml")
        path.write_text(text, encoding="utf8", errors="surrogatepass")
        refused_or_fine(lambda: Experiment.load(path))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs"), left_out=["flip"])


@given(st.data())
def test_any_metrics_file_is_counted_or_noted(run_folder: Path, data: st.DataObject) -> None:
    path, whole = run_folder / "metrics.json", (run_folder / "metrics.json").read_bytes()
    try:
        if data.draw(st.booleans()):
            path.write_text(json.dumps(changed(json.loads(whole), data.draw)))
        else:
            path.write_bytes(damaged(whole, data.draw))
        refused_or_fine(lambda: read_record(run_folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = tables.collect(run_folder.parents[3], "fake", [("clgan", "bottle", 0)])
        assert frame["finished"].all() or len(frame.attrs["notes"]) == 1
        assert all("\n" not in note for note in frame.attrs["notes"])
        tables.table3(frame).markdown(), tables.summary(frame).latex()
    finally:
        path.write_bytes(whole)


def damaged(content: bytes, draw: Any) -> bytes:
    """The bytes cut short, with some of them changed, or with some put in between."""
    at = draw(st.integers(0, len(content) - 1))
    noise = draw(st.binary(min_size=1, max_size=8))
    how = draw(st.sampled_from(["cut", "change", "insert"]))
    return {"cut": content[:at], "change": content[:at] + noise + content[at + len(noise) :],
            "insert": content[:at] + noise + content[at:]}[how]  # fmt: skip


@given(st.data())
def test_any_maps_file_is_read_or_refused(run_folder: Path, data: st.DataObject) -> None:
    path, whole = run_folder / "maps.npz", (run_folder / "maps.npz").read_bytes()
    try:
        path.write_bytes(damaged(whole, data.draw))
        refused_or_fine(lambda: read_maps(run_folder))
    finally:
        path.write_bytes(whole)
