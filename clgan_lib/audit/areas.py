"""The defects' areas of a data set in the MVTec AD layout, as numbers: what the audit needs of the images, and no more.

python -m clgan_lib.audit.areas DATA_ROOT bottle metal_nut --output results/paper/defect_areas.csv
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    """Measure a data set, write the table (`results/paper/defect_areas.csv` is one) and print a summary."""
    parser = argparse.ArgumentParser(
        description="Measure the area of every defect of a data set in the MVTec AD layout."
    )
    parser.add_argument("data_root", type=Path)
    parser.add_argument("categories", nargs="+")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("defect_areas.csv"))
    args = parser.parse_args()
    table = defect_areas(args.data_root, args.categories, args.image_size)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.output, index=False, float_format="%.8f")
    print(table.groupby(["category", "defect"])["area"].agg(["count", "mean", "min", "max"]).round(4).to_string())


if __name__ == "__main__":
    main()
