"""Does the embedded data rank models as real images do? Kendall's tau between the two orders of the models."""

from pathlib import Path

import numpy as np
import pandas as pd

from clgan_lib.exhibits.ablation import MEASURES
from clgan_lib.exhibits.bootstrap import MEAN
from clgan_lib.exhibits.crosscheck import Pairs, same
from clgan_lib.exhibits.run_table import collect, display, expected_runs, select
from clgan_lib.exhibits.tables import number, provenance
from clgan_lib.render.table import HOLE, NOT_APPLICABLE, Cell, Row, Table

SIDES = ("embedded", "real")


def means(results_root: str | Path, experiment: str) -> pd.Series:
    """What each model of an experiment got, the mean over seeds: by (measure, category, model).

    Raises:
        FileNotFoundError: if there is no such experiment.
    """
    frame = collect(results_root, experiment, expected_runs(experiment))
    parts = {}
    for measure, (column, postprocess, _) in MEASURES.items():
        rows = select(frame, postprocess)
        parts[measure] = pd.to_numeric(rows[column], errors="coerce").groupby([rows["category"], rows["model"]]).mean()
    return pd.concat(parts, names=["measure"]).dropna().rename(provenance(frame))


def measure(results_root: str | Path, frame: pd.DataFrame, embedded: str, real: str) -> pd.DataFrame:
    """What models get on the embedded and on real data, for the models and categories that two experiments share.

    `frame` is that of the experiment beside which the ranking is kept.

    Returns:
        measure, category, model, embedded, real (means over seeds; F1 in percent), embedded_experiment, real_experiment,
        provenance; the category "mean" is over those shared, of the models that have them all. Empty where the two share
        no two models on any category.

    Raises:
        FileNotFoundError: if there is no such experiment.
    """
    sides = {side: means(results_root, name) for side, name in zip(SIDES, (embedded, real), strict=True)}
    source = " ".join(str(side.name) for side in sides.values())
    both = pd.DataFrame(sides).dropna().reset_index()
    whole = both[both.groupby(["measure", "model"])["category"].transform("size") == both["category"].nunique()]
    mean = whole.groupby(["measure", "model"], as_index=False)[list(SIDES)].mean().assign(category=MEAN)
    rows = pd.concat([both, mean], ignore_index=True)
    rows = rows[rows.groupby(["measure", "category"])["model"].transform("size") > 1].reset_index(drop=True)
    return rows.assign(embedded_experiment=embedded, real_experiment=real, provenance=source)


def agreement(part: pd.DataFrame) -> dict[str, float]:
    """Kendall's tau between two rankings of the same models: rows of `measure`, two or more, of one measure and category.

    M. G. Kendall, "A new measure of rank correlation", Biometrika 30 (1938); tau-b, which allows for ties.

    Returns:
        tau in [-1, 1] and p, two-sided, exact without ties (both NaN where all models tie), pairs of models, and how many of
        them are ranked alike, ``agree``.
    """
    x, y = (part[side].to_numpy(float) for side in SIDES)
    from scipy.stats import kendalltau  # half a second that every report would pay, with ranks or without

    tau, p = kendalltau(x, y)
    alike = (np.sign(x[:, None] - x) * np.sign(y[:, None] - y))[np.triu_indices(len(x), 1)] > 0
    return {"tau": float(tau), "p": float(p), "pairs": len(alike), "agree": int(alike.sum())}


def table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """Kendall's tau, a row per measure, a column per category that both have and one for the mean; `rows` not empty."""
    categories = list(dict.fromkeys(rows["category"]))
    lines = []
    for measure in [m for m in MEASURES if m in set(rows["measure"])]:
        parts = dict(list(rows[rows["measure"] == measure].groupby("category")))
        cells = [_tau(parts[c]) if c in parts else Cell(HOLE, "hole") for c in categories]
        lines.append(Row([Cell(measure, "label"), *cells]))
    models = ", ".join(display(str(model)) for model in dict.fromkeys(rows["model"]))
    names = [rows[f"{side}_experiment"].iloc[0] for side in SIDES]
    caption = f"Does {names[0]} rank as {names[1]} does? Kendall's tau between the two orders of the models."
    notes = [
        f"Models: {models}. In brackets how many of all pairs of models are ranked alike, and the two-sided p-value of "
        "tau = 0. +1: the same order; 0: no relation; −1: reversed. The models were not trained alike in both."
    ]
    return Table("ranks", caption, ["measure", *categories], lines, notes=notes, source=rows["provenance"].iloc[0])


def _tau(part: pd.DataFrame) -> Cell:
    ranking = agreement(part)
    if np.isnan(ranking["tau"]):
        return Cell(NOT_APPLICABLE, "hole")
    pairs = f"{ranking['agree']}/{ranking['pairs']}"
    return Cell(f"{number(ranking['tau'], 2, True)} ({pairs}, p = {number(ranking['p'], 3)})")


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Both sides of the ranking.

    Raises:
        FileNotFoundError: if an experiment that it compares has no finished run here.
    """
    names = [str(rows[f"{side}_experiment"].iloc[0]) for side in SIDES]
    for name in names:
        if not any((results_root / name).glob("*/*/seed*/metrics.json")):
            raise FileNotFoundError(f"the runs of {name} are not here; make benchmark EXPERIMENT={name}")
    yield from same(rows, measure(results_root, frame, *names), ["measure", "category", "model"], SIDES)
