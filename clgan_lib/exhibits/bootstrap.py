"""Is one model better than another, or was it the images? A paired bootstrap over test images.

F1 of single images scatters by 17 to 28 points, so a mean over some 60 images has a standard error of 2 to 3. Two models
on the same images differ by less noise than that, since what is hard for one is hard for the other: hence paired.
B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979); the percentile interval.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clgan_lib.exhibits.crosscheck import Pairs, within
from clgan_lib.exhibits.run_table import display, read_scores, select
from clgan_lib.exhibits.tables import number, provenance
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table

MEAN = "mean"  # the pseudo-category of the mean over categories
_HEADLINE = "dual_threshold"  # the paper's post-processing; differences are told of it
_DIFFERENCE = ("difference", "low", "high")
_ROUNDED = 2e-4  # scores.csv, which the differences come from, holds percent with four decimals


def paired_bootstrap(
    pairs: Sequence[NDArray[np.float64]], *, resamples: int = 4000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The mean difference between two models, and an interval that holds the true one with probability `level`.

    Args:
        pairs: per category the differences model - reference, one per image, ``(N,)`` each. Images are resampled
            within their category; the mean is over categories, each counting the same.

    Returns:
        Difference, lower and upper bound, in the unit of the differences. With one image in every category there is
        nothing to resample, and the bounds equal the difference.

    Raises:
        ValueError: if there is no category, or one without images.
    """
    if not pairs or not all(map(len, pairs)):
        raise ValueError(
            "pairs: a category has no image that both models were scored on; is a run's scores.csv missing?"
        )
    rng = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for differences in pairs:
        chosen = rng.integers(0, len(differences), (resamples, len(differences)))
        draws += np.asarray(differences, float)[chosen].mean(1) / len(pairs)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([np.mean(differences) for differences in pairs])), float(low), float(high)


def differences(results_root: str | Path, frame: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Every model against `reference`, per category and over all: mean difference of per-image F1, with interval.

    Returns:
        reference, model, category (or "mean"), images, difference, low, high, in points. An image scored with several
        seeds counts once, with its mean. The mean is given only where no category is missing; a model and category
        without images in common with the reference has no row.
    """
    rows = []
    for model, gaps in _gaps(results_root, frame, reference, ["postprocess", "category", "name"]):
        parts = _by_category(gaps.loc[_HEADLINE])
        groups = {category: [part] for category, part in parts.items()}
        groups |= {MEAN: list(parts.values())} if set(parts) == set(frame["category"]) else {}
        for category, group in groups.items():
            key = {"reference": reference, "model": model, "category": category, "images": sum(map(len, group))}
            rows.append(key | dict(zip(_DIFFERENCE, paired_bootstrap(group), strict=True)))
    return pd.DataFrame(rows).assign(provenance=provenance(frame))


def variance(results_root: str | Path, frame: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Where the uncertainty of each headline difference comes from: the test images, the seed, the threshold.

    The difference is the mean over categories of the mean over images; only categories that both models have count, and
    images count once, with their mean over seeds.

    Returns:
        reference, model, postprocess, categories, images, seeds, difference, low, high (95 %, by resampling the images),
        image_error (standard error of the mean over images), seed_error (standard error of the mean over seeds; NaN with one
        seed, where it is unknown), image_share (of the two errors' squares, percent), lowest and highest difference
        over the thresholds that both have, thresholds (their names). In points of F1; no row where the two have no seed
        in common.
    """
    rows = [
        {"reference": reference, "model": model, "postprocess": _HEADLINE, **_decomposed(gaps)}
        for model, gaps in _gaps(results_root, frame, reference, ["postprocess", "seed", "category", "name"])
    ]
    return pd.DataFrame(rows).assign(provenance=provenance(frame))


def _gaps(
    results_root: str | Path, frame: pd.DataFrame, reference: str, index: list[str]
) -> Iterator[tuple[str, pd.Series]]:
    """Each model that can be compared: F1 of images minus the reference's, by `index`, mean over what it leaves out."""
    scores = read_scores(results_root, frame)
    for model in frame.loc[frame["model"] != reference, "model"].unique():
        gaps = paired_gaps(scores, index, "F1", model, reference)
        if len(gaps) and _HEADLINE in gaps.index.get_level_values("postprocess"):
            yield model, gaps


def paired_gaps(rows: pd.DataFrame, index: list[str], column: str, model: str, reference: str) -> pd.Series:
    """One model's `column` minus the reference's, by `index`, mean over what it leaves out; empty without a pair."""
    both = rows[rows["model"].isin([model, reference])].astype({column: float})
    wide = both.pivot_table(index=index, columns="model", values=column).reindex(columns=[model, reference])
    return (wide[model] - wide[reference]).dropna()


def _by_category(images: pd.Series) -> dict[str, NDArray[np.float64]]:
    return {str(category): part.to_numpy() for category, part in images.groupby("category")}


def _decomposed(gaps: pd.Series) -> dict[str, Any]:
    """What `variance` tells of one model, from its per-image differences by postprocess, seed, category and name."""
    means = gaps.groupby(["postprocess", "seed", "category"]).mean()
    by_threshold = means.groupby(["postprocess", "category"]).mean().groupby("postprocess").mean()
    per_seed = means.loc[_HEADLINE].groupby("seed").mean()
    images = gaps.loc[_HEADLINE].groupby(["category", "name"]).mean()
    groups = _by_category(images)
    image_error = float(np.sqrt(sum(g.var(ddof=1) / len(g) for g in groups.values() if len(g) > 1)) / len(groups))
    seed_error = float(per_seed.std(ddof=1) / np.sqrt(len(per_seed))) if len(per_seed) > 1 else float("nan")
    total = image_error**2 + seed_error**2
    return {
        "images": len(images), "categories": ", ".join(sorted(groups)), "seeds": len(per_seed),
        **dict(zip(_DIFFERENCE, paired_bootstrap(list(groups.values())), strict=True)),
        "image_error": image_error, "seed_error": seed_error,
        "image_share": 100 * image_error**2 / total if total > 0 else float("nan"),
        "lowest": float(by_threshold.min()), "highest": float(by_threshold.max()),
        "thresholds": ", ".join(by_threshold.index),
    }  # fmt: skip


def sentence(row: Mapping[Any, Any]) -> str:
    """One row of `variance` as a referee could quote it."""
    names = row["thresholds"].replace("_", " ").split(", ")
    signed = {name: number(row[name], 1, True) for name in (*_DIFFERENCE, "lowest", "highest")}
    verdict = "does not tell the two apart" if row["low"] <= 0 <= row["high"] else "excludes zero"
    seeds = "one seed was trained, so what another would change is unknown"
    if row["seeds"] > 1:
        seeds = (
            f"over {row['seeds']} seeds the mean has a standard error of {number(row['seed_error'], 1)}, and the test "
            f"images are {number(row['image_share'], 0)} % of the variance of both"
        )
    thresholds = "only one threshold is there for both"
    if len(names) > 1:
        thresholds = "between {lowest} and {highest}".format(**signed)
        thresholds += f" under {len(names)} thresholds ({', '.join(names)})"
    return (
        f"{display(str(row['model']))} minus {display(str(row['reference']))} on {row['categories']}: "
        f"{signed['difference']} points of F1 ({row['postprocess'].replace('_', ' ')}); 95 % interval {signed['low']} to "
        f"{signed['high']} over the choice of {row['images']} test images, which {verdict}; {seeds}; {thresholds}."
    )


def variance_table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """`variance` in print, with a sentence to quote per model below; `rows` are not empty."""
    reference, lines, notes = str(rows["reference"].iloc[0]), list[Row](), list[str]()
    for row in rows.to_dict("records"):
        seed = number(row["seed_error"], 1) if row["seeds"] > 1 else NOT_APPLICABLE
        over = f"{number(row['lowest'], 1, True)} to {number(row['highest'], 1, True)}"
        texts = [number(row["difference"], 1, True), number(row["image_error"], 1), seed, over]
        lines.append(Row([Cell(display(str(row["model"])), "label"), *map(Cell, texts)]))
        notes.append(sentence(row))
    caption = f"F1 minus that of {display(reference)}, in points: how sure, and by what."
    header = ["model", "difference", "error by images", "error by seeds", "over thresholds"]
    return Table(f"variance_{reference}", caption, header, lines, notes=notes, source=provenance(frame))


def difference_table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """`differences`, not empty: a row per model, a column per category; bold where the interval excludes zero."""
    reference, missing = str(rows["reference"].iloc[0]), Cell(NOT_APPLICABLE, "hole")
    categories = [*sorted(frame["category"].unique()), MEAN]
    cells = {(row["model"], row["category"]): _cell(row) for row in rows.to_dict("records")}
    lines = [
        Row([Cell(display(model), "label"), *(cells.get((model, category), missing) for category in categories)])
        for model in frame.loc[frame["model"] != reference, "model"].unique()
    ]
    images = rows[rows["category"] != MEAN].groupby("category")["images"].max()
    caption = (
        f"F1 minus that of {display(reference)}, in points, with the 95 % interval of a paired bootstrap over the defective "
        "images; bold where it excludes zero."
    )
    counts = ", ".join(f"{category} {count}" for category, count in images.items())
    notes = [f"Images: {counts}. {NOT_APPLICABLE}: a run or its scores.csv is missing."]
    name, header = f"differences_{reference}", ["model", *categories]
    return Table(name, caption, header, lines, notes=notes, source=provenance(frame))


def _cell(row: Mapping[Any, Any]) -> Cell:
    low, high = row["low"], row["high"]
    text = f"{number(row['difference'], 1, True)} [{number(low, 1)}, {number(high, 1)}]"
    return Cell(text, "best" if low > 0 or high < 0 else "plain")


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The `differences`, and that each lies in its interval.

    A difference is over the images that both models have. So it is held against the runs' means only where all their runs
    scored the same images: not with an import that lacks some, or other types left out.
    """
    finished = frame[frame["finished"].astype(bool)]
    f1 = select(finished).astype({"F1": float}).groupby(["category", "model"])["F1"].mean()
    for row in rows[rows["category"] != MEAN].to_dict("records"):
        model, category = row["model"], row["category"]
        runs = finished[finished["model"].isin([model, row["reference"]]) & (finished["category"] == category)]
        whole = all(not text or re.search(r"\b(\d+) of \1 test images$", text) for text in runs["imported"])
        if whole and runs["left_out"].nunique() < 2:
            should = f1.get((category, model), np.nan) - f1.get((category, row["reference"]), np.nan)
            yield f"{model} on {category}", row["difference"], should, _ROUNDED
        yield from within(f"{model} on {category}", row)
