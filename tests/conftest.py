"""What several tests share: one thread, a cache of their own, and a tiny data set in the MVTec AD layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import papermill
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of a test go to a folder of the test session, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clgan_lib.data.CACHE", tmp_path_factory.getbasetemp() / "cache")
        yield


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
