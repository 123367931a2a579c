"""Tables and data: a fault leaves no half of a file, and the next call completes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_runs import fake_run
from faults import in_child
from tqdm import tqdm

from clgan_lib import data
from clgan_lib.exhibits import registry, tables
from clgan_lib.synthetic import write_dataset

tqdm.monitor_interval = 0  # no thread that a fork would lose
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are dealt out in forked processes"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that bears a final name."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def table_writer(root: Path) -> Callable[[], object]:
    frame = tables.collect(root, "fake")
    return lambda: registry.write_tables(frame, root / "fake" / "tables")


def strike_tables(root: Path, at: int, fault: str, whole: dict[str, bytes]) -> None:
    """A file of a table is whole or not there, and writing them again completes them."""
    write, folder = table_writer(root), root / "fake" / "tables"
    in_child(write, folder, at, fault)
    assert contents(folder).items() <= whole.items(), f"{fault} at change {at}"
    assert in_child(write).code == 0 and contents(folder) == whole
    shutil.rmtree(folder)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, bytes], int]:
    """Runs, their tables' files, and how many changes writing them takes."""
    for model in ("clgan", "template"):
        fake_run(tmp_path, model, "bottle", maps=False)
    folder = tmp_path / "fake" / "tables"
    changes = in_child(table_writer(tmp_path), folder).changes
    found = contents(folder)
    shutil.rmtree(folder)
    return tmp_path, found, changes


def test_tables_are_whole_or_not_there(written: tuple[Path, dict[str, bytes], int]) -> None:
    root, whole, changes = written
    for share, fault in ((0.2, "half a file"), (0.5, "full disk"), (0.8, "SIGKILL")):
        strike_tables(root, round(share * changes), fault, whole)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", ["SIGKILL", "half a file", "full disk"])
def test_tables_are_whole_at_every_change(written: tuple[Path, dict[str, bytes], int], fault: str) -> None:
    root, whole, changes = written
    assert changes > 20
    for at in range(1, changes + 1):
        strike_tables(root, at, fault, whole)
    print(f"{changes} cases of {fault}")


def strike_data(root: Path, at: int, fault: str, whole: dict[str, bytes]) -> None:
    """The embedded data, interrupted, is completed to the same files; what bears a category's name is whole."""

    def draw() -> Path:
        return write_dataset(root, categories=["tile"], image_size=32, train=2, test=3, seed=0)

    in_child(draw, root, at, fault)
    if (root / "tile").exists():
        assert contents(root / "tile") == whole
    assert in_child(draw).code == 0 and contents(root / "tile") == whole
    shutil.rmtree(root)


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[dict[str, bytes], int]:
    root = tmp_path / "whole"
    outcome = in_child(lambda: write_dataset(root, categories=["tile"], image_size=32, train=2, test=3, seed=0), root)
    return contents(root / "tile"), outcome.changes


def test_the_embedded_data_is_completed(drawn: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    whole, changes = drawn
    early = [(at, "SIGKILL") for at in range(1, 7)]  # until the marker is there
    for at, fault in (*early, (round(0.3 * changes), "SIGKILL"), (round(0.9 * changes), "half a file")):
        strike_data(tmp_path / "data", at, fault, whole)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", ["SIGKILL", "half a file", "full disk"])
def test_the_embedded_data_is_completed_after_every_change(
    drawn: tuple[dict[str, bytes], int], tmp_path: Path, fault: str
) -> None:
    whole, changes = drawn
    assert changes > 15
    for at in range(1, changes + 1):
        strike_data(tmp_path / "data", at, fault, whole)
    print(f"{changes} cases of {fault}")


def test_a_decoded_cache_is_whole_or_made_again(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "decoded cache"
    expected = data.load_category(tiny_root, "nut", 16)
    monkeypatch.setattr(data, "CACHE", cache)
    changes = in_child(lambda: data.load_category(tiny_root, "nut", 16), cache).changes
    for at in range(1, changes + 1):
        for fault in ("SIGKILL", "half a file"):
            shutil.rmtree(cache, ignore_errors=True)
            in_child(lambda: data.load_category(tiny_root, "nut", 16), cache, at, fault)
            again = data.load_category(tiny_root, "nut", 16)
            assert (again.train == expected.train).all() and (again.masks == expected.masks).all()
