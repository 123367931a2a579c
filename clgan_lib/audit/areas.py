"""The defects' areas of a data set in the MVTec AD layout: all that the audit needs of the images."""

from pathlib import Path

import pandas as pd

from clgan_lib.data import load_category


def defect_areas(root: str | Path, categories: list[str], image_size: int = 256) -> pd.DataFrame:
    """One row per test image; masks resized by nearest neighbour.

    Args:
        root: the data set's folder.
        categories: which of its categories.
        image_size: side of the squares on which areas are counted.

    Returns:
        The columns category, defect ("good" without one), image (file name), pixels, area (fraction of the image).

    Raises:
        ValueError, OSError: as ``load_category``.
    """
    rows = []
    for name in categories:
        category = load_category(root, name, image_size)
        pixels = category.masks.flatten(1).sum(1).tolist()
        files = [Path(path).name for path in category.test_names]
        rows += [(name, *row, row[2] / image_size**2) for row in zip(category.defects, files, pixels, strict=True)]
    return pd.DataFrame(rows, columns=["category", "defect", "image", "pixels", "area"])
