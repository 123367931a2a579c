"""Published tables as the audit reads them, each cell with the rounding it was printed with, and the areas of defects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.audit.surface import METRICS as BOX
from clgan_lib.audit.surface import Array
from clgan_lib.data import load_category

METRICS = ("P", "R", "ACC", "F1", "IoU")
MEAN = "mean"  # the category that holds a row's mean
GOOD = "good"  # the defect type of images without a defect
_MAX_DECIMALS = 6
MAIN, SWEEP = ("metric", "model", "category"), ("metric", "category", "k")  # what names a cell


@dataclass(frozen=True)
class Column:
    """One model on one category: its printed metrics and half a unit of their last decimals, in percent; nan if absent."""

    model: str
    category: str
    percent: dict[str, float]
    half: dict[str, float]

    def low(self, metric: str) -> float:
        """The smallest number that is printed so."""
        return max(0.0, self.percent[metric] - self.half[metric])

    def high(self, metric: str) -> float:
        """The largest number that is printed so."""
        return min(100.0, self.percent[metric] + self.half[metric])

    def has(self, *metrics: str) -> bool:
        """Whether all of these are printed."""
        return not any(np.isnan(self.percent[metric]) for metric in metrics)

    def box(self) -> tuple[Array, Array]:
        """Lower and upper ends of P, R, F1 and IoU as fractions, each of shape ``(4,)``; 0 and 1 where one is absent."""
        low = [self.low(metric) / 100 if self.has(metric) else 0.0 for metric in BOX]
        high = [self.high(metric) / 100 if self.has(metric) else 1.0 for metric in BOX]
        return np.array(low), np.array(high)


def read_table(source: str | Path | pd.DataFrame, keys: tuple[str, ...] = MAIN) -> pd.DataFrame:
    """A tidy table of percentages, checked.

    A cell read from a file keeps its printed decimals: "5.5" among "17.35" stands for 5.45 to 5.55. A bare "0" is what
    tables print where nothing was found, and a data frame of numbers has lost its trailing zeros: these take the most
    decimals that any cell of the table shows.

    Args:
        source: a CSV or a data frame with the columns ``keys`` and ``percent``; other columns are left out.
        keys: ``MAIN`` for a main table, ``SWEEP`` for a sweep; ``metric`` is one of ``METRICS``.

    Returns:
        The columns ``keys``, ``percent`` (float, 0 to 100) and ``half``, half a unit of the last printed decimal.

    Raises:
        ValueError: for a missing column, an empty table, an unknown metric, no percentage, a cell that stands there twice.
        OSError: for a file that isn't there.
    """
    name, table = _open(source, (*keys, "percent"), "one row per cell")
    for metric in table["metric"]:
        if metric not in METRICS:
            raise ValueError(f"{name}: unknown metric {metric!r}; the audit knows {', '.join(METRICS)}")
    percent = pd.to_numeric(table["percent"], errors="coerce").astype(float)
    refused = {"is no percentage from 0 to 100": ~percent.between(0, 100), "is twice": table.duplicated([*keys])}
    for why, bad in refused.items():
        if bad.any():
            *place, printed = table.loc[bad, [*keys, "percent"]].iloc[0]
            where = " / ".join(map(str, place))
            raise ValueError(f"{name}: {where} = {printed} {why}; correct the row or take it out")
    clean = table[[*keys]].assign(percent=percent, half=_rounding(list(table["percent"]))).reset_index(drop=True)
    return clean.astype({"k": float}) if "k" in keys else clean


def columns(table: pd.DataFrame) -> list[Column]:
    """The columns of a main table, in the order in which it names them."""
    columns: dict[tuple[str, str], Column] = {}
    for metric, model, category, percent, half in table[[*MAIN, "percent", "half"]].itertuples(index=False, name=None):
        empty = Column(model, category, dict.fromkeys(METRICS, np.nan), dict.fromkeys(METRICS, np.nan))
        column = columns.setdefault((model, category), empty)
        column.percent[metric], column.half[metric] = percent, half
    return list(columns.values())


def read_areas(source: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Defect areas, one row per test image: category, defect ("good" without one) and area, a fraction of the image.

    Raises:
        ValueError: for a missing column, an area outside [0, 1], and one of 0 elsewhere than in good images.
        OSError: for a file that isn't there.
    """
    name, areas = _open(source, ("category", "defect", "area"), "one row per test image")
    fraction = pd.to_numeric(areas["area"], errors="coerce").astype(float)
    wrong = ~fraction.between(0, 1) | ((fraction == 0) != (areas["defect"] == GOOD))
    if wrong.any():
        row = [areas[column][wrong].iloc[0] for column in ("category", "defect", "area")]
        raise ValueError(
            f"{name}: {row[0]}/{row[1]} has area {row[2]}; a fraction of the image, 0 for {GOOD!r} and only there"
        )
    return areas[["category", "defect"]].assign(area=fraction)


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


def _open(source: str | Path | pd.DataFrame, needed: tuple[str, ...], rows: str) -> tuple[str, pd.DataFrame]:
    """Its name in messages, and the table with everything as printed."""
    name = "table" if isinstance(source, pd.DataFrame) else Path(source).name
    table = source if isinstance(source, pd.DataFrame) else pd.read_csv(source, dtype={"percent": str})
    for column in needed:
        if column not in table:
            raise ValueError(f"{name}: no column {column!r}; the audit needs {', '.join(needed)}, {rows}")
    if table.empty:
        raise ValueError(f"{name}: no rows; the audit needs {rows}")
    return name, table


def _rounding(printed: list[Any]) -> Array:
    """Half a unit of each cell's last decimal, in percent."""
    text = [v.strip() if isinstance(v, str) else f"{v:.{_MAX_DECIMALS}f}".rstrip("0") for v in printed]
    decimals = np.array([len(value.partition(".")[2]) for value in text])
    as_table = np.array([not isinstance(v, str) or v.strip() == "0" for v in printed])
    return 0.5 * 10.0 ** -np.where(as_table, decimals.max(), decimals)
