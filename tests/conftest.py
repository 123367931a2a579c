"""What several tests share: one thread, a cache and results of their own, and a tiny data set in the MVTec AD layout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import papermill
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

torch.set_num_threads(1)
cv2.setNumThreads(1)


ROOT = Path(__file__).resolve().parents[1]
USERS = tuple(f"{ROOT / name}{os.sep}" for name in ("results", ".cache"))  # what runs of the user fill
TOUCHING = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"}
HOME = pytest.StashKey[Path]()

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile(
    "quick", max_examples=25, derandomize=True, deadline=None, suppress_health_check=SLOW, database=None
)
settings.register_profile("full", max_examples=400, deadline=None, suppress_health_check=SLOW, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_configure(config: pytest.Config) -> None:
    """Give this process and all that it starts a cache and results of their own, before `clgan_lib` is imported.

    The results are those that git holds, in its index; outside a checkout they are the published numbers alone.
    """
    home = config.stash[HOME] = Path(tempfile.mkdtemp(prefix="clgan-tests-"))
    git = ["git", "-C", str(ROOT)]
    with suppress(OSError, subprocess.CalledProcessError):
        held = subprocess.run([*git, "ls-files", "-z", "results"], capture_output=True, check=True).stdout
        subprocess.run([*git, "checkout-index", "-z", "--stdin", f"--prefix={home}/"], input=held, check=True)
    if not (home / "results/paper").is_dir():
        shutil.copytree(ROOT / "results/paper", home / "results/paper")
    os.environ |= {"CLGAN_CACHE": str(home / "cache"), "CLGAN_RESULTS": str(home / "results")}
    sys.addaudithook(keep_out)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


def keep_out(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test that looks into the results or the cache of the user, or writes there: its outcome would hang on them."""
    if event in TOUCHING and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(USERS):
            raise AssertionError(f"{path} is the user's; a test reads what git holds, from clgan_lib.paths.RESULTS")


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    return draw_nuts(tmp_path)


def draw_nuts(root: Path) -> Path:
    """A data root with one category, ``nut``: 8 good images to train on; 2 good, 3 ``dent`` and 2 ``rust`` to test on.

    32x32, a bright disc on a dark ground with a little noise; a defect is a dark square with an exact mask.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    disc = np.where((y - 16) ** 2 + (x - 16) ** 2 < 144, 180, 40)
    for folder, count in {"train/good": 8, "test/good": 2, "test/dent": 3, "test/rust": 2}.items():
        for i in range(count):
            image = np.clip(disc[..., None] + rng.normal(0, 4, (32, 32, 3)), 0, 255).astype(np.uint8)
            mask = np.zeros((32, 32), np.uint8)
            if not folder.endswith("good"):
                top, left = rng.integers(8, 18, 2)
                image[top : top + 5, left : left + 5] = 10
                mask[top : top + 5, left : left + 5] = 255
                save(root / "nut/ground_truth" / folder.split("/")[1] / f"{i:03}_mask.png", mask)
            save(root / "nut" / folder / f"{i:03}.png", image)
    return root


def save(path: Path, image: np.ndarray) -> None:
    """Write an image, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def execute_notebook(source: Path, output: Path, /, **parameters: Any) -> nbformat.NotebookNode:
    """Run a notebook by papermill as a batch job would, in the folder of its output.

    Kernels that start at the same moment can pick the same port, and then one dies at once: it is started again.
    """
    settings = {"kernel_name": "python3", "execution_timeout": 240, "progress_bar": False, "cwd": str(output.parent)}
    for _ in range(3):
        try:
            return papermill.execute_notebook(source, output, parameters=parameters, **settings)
        except RuntimeError as error:
            if "Kernel died before replying" not in str(error):
                raise
    raise RuntimeError(f"{source.name}: its kernel died three times before its first cell")
