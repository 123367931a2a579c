"""The smallest run there is, for tests that interrupt it: its settings, and a hash of all that it computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import save
from faults import in_child
from safetensors.numpy import load_file

from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

CLGAN = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}


@pytest.fixture(scope="module", name="settings")
def settings_of_the_smallest_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], RunConfig]:
    """The smallest run there is, as a function of where its results go: two steps, a checkpoint after each."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in {"train/good": 4, "test/good": 1, "test/dent": 1}.items():
        for i in range(count):
            image, mask = rng.integers(90, 110, (32, 32, 3)), np.zeros((32, 32), np.uint8)
            if folder == "test/dent":
                image[8:14, 8:14], mask[8:14, 8:14] = 10, 255
                save(root / f"nut/ground_truth/dent/{i:03}_mask.png", mask)
            save(root / "nut" / folder / f"{i:03}.png", image.astype(np.uint8))

    def at(results: Path) -> RunConfig:
        return RunConfig(
            model="clgan", category="nut", options=CLGAN, image_size=32, holdout=3, budget=4.0, checkpoint_seconds=0.0,
            data_root=str(root), results_root=str(results), threads=1,
        )  # fmt: skip

    return at


def essence(folder: Path) -> str:
    """A hash of all that a run computed: weights and maps to the last bit, every number, and no clock."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(folder / "weights.safetensors").items()):
        digest.update(name.encode() + array.tobytes())
    with np.load(folder / "maps.npz") as maps:
        for name in sorted(maps.files):
            digest.update(name.encode() + maps[name].tobytes())
    digest.update((folder / "scores.csv").read_bytes())
    digest.update(pd.read_csv(folder / "history.csv").drop(columns="seconds").to_csv().encode())
    content = json.loads((folder / "metrics.json").read_text())
    aside = ("time", "env", "config")  # clocks, the commit, and where results go; the fingerprint holds the settings
    content = {key: value for key, value in content.items() if key not in aside}
    digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module", name="whole")
def what_the_whole_run_computes(
    settings: Callable[[Path], RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int]:
    """What the run computes where nothing happens, and how many changes it makes on the disk."""
    config = settings(tmp_path_factory.mktemp("whole"))
    outcome = in_child(lambda: execution.execute(config), Path(config.results_root))
    assert outcome.code == 0, outcome.error
    return essence(config.folder), outcome.changes
