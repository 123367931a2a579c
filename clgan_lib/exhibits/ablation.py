"""Ablation: every variant against the base of its group.

A group is a base and its variants, one change each, as the experiment's YAML lists them
(`clgan_lib.runs.experiment.Experiment.ablation`). Runs are paired: same category, same seed. A base with one variant gives a
2 x 2 design with the two thresholds, since every run has both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits.bootstrap import paired_bootstrap
from clgan_lib.exhibits.run_table import display, read_scores, select
from clgan_lib.exhibits.tables import block, number, provenance, spread
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.record import read_record

DUAL, CALIBRATED = "F1, dual", "F1, calibrated"
INTERACTION = "calibrated − dual"
# Name: column of the tidy table, post-processing (of F1; AUROC and AP need none), decimals.
MEASURES = {
    DUAL: ("F1", "dual_threshold", 1),
    CALIBRATED: ("F1", "calibrated", 1),
    "AUROC": ("AUROC", "dual_threshold", 3),
    "AP": ("AP", "dual_threshold", 3),
}
# Fields of a config that tell runs apart; the others are settings of the method.
_IDENTITY = ("experiment", "results_root", "category", "seed", "variant", "options", "leave_out")

_Groups = Mapping[str, Sequence[str]]


def groups_of(experiment: str) -> _Groups:
    """The groups that ``config/<experiment>.yaml`` lists, each with its base first.

    Raises:
        ValueError: if it lists none.
        FileNotFoundError: if there is no such file.
    """
    if groups := Experiment.load(experiment).ablation:
        return groups
    raise ValueError(f"experiment: config/{experiment}.yaml has no groups to compare; add `ablation:`, a base first")


def effects(results_root: str | Path, frame: pd.DataFrame, groups: _Groups) -> pd.DataFrame:
    """Each variant minus the base of its group, by measure.

    Returns:
        A row per group, variant and measure; none for a variant without a pair. F1 in points, AUROC and AP in [-1, 1].
        Best first within a group, by the calibrated F1. Columns: group, base, variant, changes (settings that differ),
        measure (of `MEASURES`, and the interaction: the gain by calibration of the variant minus that of the base),
        difference (mean over categories of the mean over seeds), low and high (95 % by a paired bootstrap over test
        images; NaN for measures of whole runs, or where a pair has no ``scores.csv``), deviation (over seeds; NaN with
        one), pairs (of runs), wanted (pairs).
    """
    scores = read_scores(results_root, frame)
    wanted = frame["category"].nunique() * frame["seed"].nunique()
    rows: list[dict[str, Any]] = []
    for group, (base, *variants) in groups.items():
        calibrated = {variant: effect(run_gaps(frame, variant, base, CALIBRATED)) for variant in variants}
        for variant in sorted(variants, key=lambda name: np.nan_to_num(-calibrated[name], nan=np.inf)):
            images = _image_gaps(scores, variant, base)
            for measure in (*MEASURES, INTERACTION):
                gaps = run_gaps(frame, variant, base, measure)
                if gaps.empty:
                    continue
                low, high = _interval(images[measure], len(gaps)) if measure in images else (np.nan, np.nan)
                rows.append({
                    "group": group, "base": base, "variant": variant, "measure": measure,
                    "changes": _changes(results_root, frame, variant, base),
                    "difference": effect(gaps), "low": low, "high": high,
                    "deviation": float(seed_means(gaps).std(ddof=1)), "pairs": len(gaps), "wanted": wanted,
                })  # fmt: skip
    differences = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["group", "variant", "measure"])
    return differences.assign(provenance=provenance(frame))


def run_gaps(frame: pd.DataFrame, variant: str, base: str, measure: str) -> pd.Series:
    """Variant minus base for each complete pair of runs, by (category, seed)."""
    if measure == INTERACTION:
        return (run_gaps(frame, variant, base, CALIBRATED) - run_gaps(frame, variant, base, DUAL)).dropna()
    column, postprocess, _ = MEASURES[measure]
    rows = select(frame, postprocess)
    rows = rows[rows["model"].isin([variant, base])].assign(**{column: pd.to_numeric(rows[column], errors="coerce")})
    wide = rows.pivot_table(index=["category", "seed"], columns="model", values=column)
    there = {variant, base} <= set(wide.columns)
    return (wide[variant] - wide[base]).dropna() if there else pd.Series(dtype=float)


def effect(gaps: pd.Series) -> float:
    """The mean over categories of the mean over seeds of `run_gaps`; NaN without pairs."""
    return float(gaps.groupby("category").mean().mean()) if len(gaps) else float("nan")


def seed_means(gaps: pd.Series) -> pd.Series:
    """The mean over categories of `run_gaps`, by seed; seeds that lack a category are left out."""
    return gaps.unstack("category").dropna().mean(axis=1)


def _image_gaps(scores: pd.DataFrame, variant: str, base: str) -> dict[str, pd.Series]:
    """Variant minus base in F1 of each image, by (seed, category, name), under both thresholds, and the interaction."""
    mine = scores[scores["model"].isin([variant, base])]
    gaps = {}
    for measure in (DUAL, CALIBRATED):
        rows = mine[mine["postprocess"] == MEASURES[measure][1]] if len(mine) else mine
        if rows["model"].nunique() < 2:
            return {}
        wide = rows.pivot_table(index=["seed", "category", "name"], columns="model", values="F1")
        gaps[measure] = (wide[variant] - wide[base]).dropna()
    return gaps | {INTERACTION: gaps[CALIBRATED] - gaps[DUAL]}


def _interval(gaps: pd.Series, pairs: int) -> tuple[float, float]:
    """95 % by a bootstrap over images, each the mean over seeds; NaN where some of the runs lack their images."""
    if gaps.groupby(["seed", "category"]).ngroups < pairs:
        return np.nan, np.nan
    images = gaps.groupby(["category", "name"]).mean()
    return paired_bootstrap([part.to_numpy() for _, part in images.groupby("category")])[1:]


def _changes(results_root: str | Path, frame: pd.DataFrame, variant: str, base: str) -> str:
    """The variant's settings that differ from the base's, such as ``"lambda_x=1.0"``."""
    runs = frame[frame["finished"].astype(bool)].drop_duplicates("model").set_index("model")["folder"]
    mine, theirs = (read_record(Path(results_root) / runs[name]).content()["config"] for name in (variant, base))
    mine, theirs = (config | config.get("options", {}) for config in (mine, theirs))
    names = [n for n in mine | theirs if n not in _IDENTITY and mine.get(n) != theirs.get(n)]
    return ", ".join(f"{name}={mine.get(name, 'default')}" for name in names) or "nothing"


def squares(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of `effects` that belong to groups with one variant, as far as there are runs."""
    return differences[differences.groupby("group")["variant"].transform("nunique") == 1].reset_index(drop=True)


def square_table(frame: pd.DataFrame, differences: pd.DataFrame) -> Table:
    """Each group of `squares`, not empty, as a 2 x 2 with the two thresholds; the last cell is the interaction."""
    both = select(frame, "calibrated").merge(
        select(frame, "dual_threshold")[["model", "category", "seed", "F1"]], on=["model", "category", "seed"],
        suffixes=("", "_dual"))  # fmt: skip
    both[INTERACTION] = pd.to_numeric(both["F1"], errors="coerce") - pd.to_numeric(both["F1_dual"], errors="coerce")
    lines, notes = list[Row](), list[str]()
    for (group, base, variant), part in differences.groupby(["group", "base", "variant"], sort=False):
        rows = part.set_index("measure")
        square = [
            [spread(both[both["model"] == name], c, decimals=1, signed=c == INTERACTION)[0]
             for c in ("F1_dual", "F1", INTERACTION)] for name in (base, variant)
        ]  # fmt: skip
        square.append([_cell(rows, measure) for measure in (DUAL, CALIBRATED, INTERACTION)])
        heads = [display(str(base)), display(str(variant)), "difference"]
        lines += block(str(group), ([Cell(head, "label"), *cells] for head, cells in zip(heads, square, strict=True)))
        worst = {m: seed_means(run_gaps(frame, str(variant), str(base), m)) for m in (DUAL, CALIBRATED)}
        lowest = " and ".join(f"{number(gaps.min(), 1, True)} ({m[4:]})" for m, gaps in worst.items() if len(gaps))
        seeds = f"On the worst of {len(worst[DUAL])} seeds: {lowest} points." if lowest else ""
        notes += [f"{display(str(variant))} differs from {display(str(base))} in: {rows['changes'].iloc[0]}. {seeds}"]
    caption = "F1 by model and by threshold, percent, mean ± standard deviation over seeds. " + _EXPLAINED
    header = ["", "model", DUAL, CALIBRATED, INTERACTION]
    return Table("ablation_2x2", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def table(frame: pd.DataFrame, differences: pd.DataFrame) -> Table:
    """Every effect: a block per group, the values of its base in italics, then its variants, best first.

    `differences` are from `effects`, not empty.
    """
    lines: list[Row] = []
    for (group, base), part in differences.groupby(["group", "base"], sort=False):
        values = []
        for column, postprocess, decimals in MEASURES.values():
            rows = select(frame, postprocess)
            values.append(Cell(spread(rows[rows["model"] == base], column, decimals=decimals)[0].text, "published"))
        group_lines = [[Cell(display(str(base)), "label"), Cell("the base", "label"), *values]]
        for variant, mine in part.groupby("variant", sort=False):
            labels = [Cell(display(str(variant)), "label"), Cell(str(mine["changes"].iloc[0]), "label")]
            group_lines.append([*labels, *(_cell(mine.set_index("measure"), measure) for measure in MEASURES)])
        lines += block(str(group), group_lines)
    intervals = int(differences[differences["measure"].isin([DUAL, CALIBRATED])]["low"].notna().sum())
    caption = "Effect of each change: the variant minus the base of its group, F1 in points. " + _EXPLAINED
    notes = [
        "In italics: the base itself. An interval covers other test images with the same trained models. It leaves out the "
        f"scatter over seeds, which ± gives. Of {intervals} intervals, one in twenty excludes zero by chance."
    ]
    if (differences["pairs"] < differences["wanted"]).any():
        notes.append("(7/9): over 7 of 9 pairs of runs.")
    header = ["group", "variant", "changed", *MEASURES]
    return Table("ablation", caption, header, lines, labels=3, notes=notes, source=provenance(frame))


_EXPLAINED = (
    "Differences: mean over categories and seeds, ± over seeds, in brackets the 95 % interval of a paired bootstrap over "
    "the defective test images; bold where it excludes zero."
)


def _cell(rows: pd.DataFrame, measure: str) -> Cell:
    """The cell of one effect; `rows` are one variant's, by measure."""
    if measure not in rows.index:
        return Cell(NOT_APPLICABLE, "hole")
    row: Any = rows.loc[measure]
    decimals = MEASURES.get(measure, MEASURES[DUAL])[2]
    text = number(row["difference"], decimals, True)
    text += "" if np.isnan(row["deviation"]) else f" ± {number(row['deviation'], decimals)}"
    if not np.isnan(row["low"]):
        text += f" [{number(row['low'], decimals, True)}, {number(row['high'], decimals, True)}]"
    text += f" ({row['pairs']}/{row['wanted']})" if row["pairs"] < row["wanted"] else ""
    return Cell(text, "best" if row["low"] > 0 or row["high"] < 0 else "plain")
