"""Ablation: every variant against the base of its group.

A group is a base and its variants, one change each, as the experiment's YAML lists them
(`clgan_lib.runs.experiment.Experiment.ablation`). Runs are paired: same category, same seed. A base with one variant gives a
2 x 2 design with the two thresholds, since every run has both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clgan_lib.exhibits.bootstrap import paired_bootstrap, paired_gaps
from clgan_lib.exhibits.crosscheck import EXACT, Pairs, numeric, within
from clgan_lib.exhibits.run_table import display, read_scores, select
from clgan_lib.exhibits.tables import block, number, provenance, spread
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned
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
_EXPLAINED = (
    "Differences: mean over categories and seeds, ± over seeds, in brackets the 95 % interval of a paired bootstrap over "
    "the defective test images; bold where it excludes zero."
)
# Fields of a config that tell runs apart; the others are settings of the method.
_IDENTITY = ("experiment", "results_root", "category", "seed", "variant", "options", "leave_out")

_ERRORS = ("low", "high", "deviation")  # unknown, and empty in the CSV, with one seed or without `scores.csv`
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


def measure(results_root: str | Path, frame: pd.DataFrame, groups: _Groups) -> pd.DataFrame:
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
            for name in (*MEASURES, INTERACTION):
                gaps = run_gaps(frame, variant, base, name)
                if gaps.empty:
                    continue
                low, high = _interval(images[name], len(gaps)) if name in images else (np.nan, np.nan)
                rows.append({
                    "group": group, "base": base, "variant": variant, "measure": name,
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
    return paired_gaps(select(frame, postprocess), ["category", "seed"], column, variant, base)


def effect(gaps: pd.Series) -> float:
    """The mean over categories of the mean over seeds of `run_gaps`; NaN without pairs."""
    return float(gaps.groupby("category").mean().mean()) if len(gaps) else float("nan")


def seed_means(gaps: pd.Series) -> pd.Series:
    """The mean over categories of `run_gaps`, by seed; seeds that lack a category are left out."""
    return gaps.unstack("category").dropna().mean(axis=1)


def _image_gaps(scores: pd.DataFrame, variant: str, base: str) -> dict[str, pd.Series]:
    """Variant minus base in F1 of each image, by (seed, category, name), under both thresholds, and the interaction."""
    gaps = {}
    for name in (DUAL, CALIBRATED):
        rows = scores[scores["postprocess"] == MEASURES[name][1]]
        gaps[name] = paired_gaps(rows, ["seed", "category", "name"], "F1", variant, base)
    return gaps | {INTERACTION: gaps[CALIBRATED] - gaps[DUAL]} if all(map(len, gaps.values())) else {}


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


def table(frame: pd.DataFrame, differences: pd.DataFrame) -> list[Table]:
    """The 2 x 2 of the groups with one variant, if there are any, then every effect; `differences` are not empty."""
    differences = numeric(differences, _ERRORS)
    single = differences.groupby("group")["variant"].transform("nunique") == 1
    return [*([square_table(frame, differences[single])] if single.any() else []), effects_table(frame, differences)]


def square_table(frame: pd.DataFrame, differences: pd.DataFrame) -> Table:
    """Each group of one variant as a 2 x 2 with the two thresholds; the last cell is the interaction."""
    f1 = {name: select(frame, MEASURES[name][1]).astype({"F1": float}) for name in (DUAL, CALIBRATED)}
    f1[INTERACTION] = f1[CALIBRATED].assign(F1=f1[CALIBRATED]["F1"] - f1[DUAL]["F1"])
    lines, notes = list[Row](), list[str]()
    for (group, base, variant), part in differences.groupby(["group", "base", "variant"], sort=False):
        pair, square = [str(base), str(variant)], list[list[Cell]]()
        for model in pair:
            own = {name: rows[rows["model"] == model] for name, rows in f1.items()}
            cells = [spread(rows, "F1", decimals=1, signed=name == INTERACTION) for name, rows in own.items()]
            square.append([Cell(display(model), "label"), *cells])
        by_measure = part.set_index("measure")
        square.append([Cell("difference", "label"), *(_cell(by_measure, name) for name in f1)])
        lines += block(str(group), square)
        worst = {name: seed_means(run_gaps(frame, pair[1], pair[0], name)) for name in (DUAL, CALIBRATED)}
        lowest = " and ".join(f"{number(gaps.min(), 1, True)} ({m[4:]})" for m, gaps in worst.items() if len(gaps))
        seeds = f"On the worst of {len(worst[DUAL])} seeds: {lowest} points." if lowest else ""
        notes += [f"{display(pair[1])} differs from {display(pair[0])} in: {part['changes'].iloc[0]}. {seeds}"]
    caption = "F1 by model and by threshold, percent, mean ± standard deviation over seeds. " + _EXPLAINED
    return Table("ablation_2x2", caption, ["", "model", *f1], lines, labels=2, notes=notes, source=provenance(frame))


def effects_table(frame: pd.DataFrame, differences: pd.DataFrame) -> Table:
    """Every effect: a block per group, the values of its base in italics, then its variants, best first."""
    lines: list[Row] = []
    for (group, base), part in differences.groupby(["group", "base"], sort=False):
        values = []
        for column, postprocess, decimals in MEASURES.values():
            rows = select(frame, postprocess)
            values.append(Cell(spread(rows[rows["model"] == base], column, decimals=decimals).text, "published"))
        group_lines = [[Cell(display(str(base)), "label"), Cell("the base", "label"), *values]]
        for variant, mine in part.groupby("variant", sort=False):
            labels = [Cell(display(str(variant)), "label"), Cell(str(mine["changes"].iloc[0]), "label")]
            group_lines.append([*labels, *(_cell(mine.set_index("measure"), name) for name in MEASURES)])
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


def _cell(rows: pd.DataFrame, measure: str) -> Cell:
    """The cell of one effect; `rows` are one variant's, by measure."""
    if measure not in rows.index:
        return Cell(NOT_APPLICABLE, "hole")
    row: Any = rows.loc[measure]
    decimals = MEASURES.get(measure, MEASURES[DUAL])[2]
    difference, low, high = (number(row[name], decimals, True) for name in ("difference", "low", "high"))
    text = difference + ("" if np.isnan(row["deviation"]) else f" ± {number(row['deviation'], decimals)}")
    text += "" if np.isnan(row["low"]) else f" [{low}, {high}]"
    text += f" ({row['pairs']}/{row['wanted']})" if row["pairs"] < row["wanted"] else ""
    return Cell(text, "best" if row["low"] > 0 or row["high"] < 0 else "plain")


def figure(frame: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Each variant minus the base of its group, a panel per measure: the bar is the interval over images, a dot a seed.

    `frame` is from `run_table.collect`, `differences` from `measure`, not empty.
    """
    differences = numeric(differences, _ERRORS)
    rows = differences.drop_duplicates(["group", "variant"])[["group", "base", "variant"]]
    opens = ~rows.duplicated("group")
    rows["y"] = np.arange(len(rows)) + opens.cumsum()  # a line for each group's name
    last = rows["y"].max()
    with mpl.rc_context(STYLE):
        drawn, axes = plt.subplots(1, len(MEASURES), figsize=(10.5, 0.27 * (last + 1) + 1.3), sharey=True)
        axes[1].sharex(axes[0])  # both F1; before anything is drawn, so that both scale to both
        for axis, name in zip(axes, MEASURES, strict=True):
            axis.axvline(0, color="#888888", linewidth=0.8)
            for row in differences[differences["measure"] == name].merge(rows).to_dict("records"):
                _effect(axis, row, seed_means(run_gaps(frame, row["variant"], row["base"], name)))
            axis.set(title=name, xlabel="points" if name.startswith("F1") else "difference")
            axis.grid(axis="y", visible=False)
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(rows["y"], rows["variant"].map(display))
        for row in rows[opens].to_dict("records"):
            text = f"{row['group']}: minus {display(row['base'])}"
            axes[0].annotate(text, (0, row["y"] - 1), xycoords=("axes fraction", "data"), xytext=(-112, 0), fontsize=9,
                             textcoords="offset points", va="center", fontweight="bold", annotation_clip=False,
                             bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axes[0].set_ylim(last + 0.7, -0.7)
        begin = f"Effects in experiment {frame['experiment'].iloc[0]}"
        bars = "Bar: 95 % interval of a bootstrap over the defective test images; blue where it excludes zero."
        means = "means over categories and seeds of paired differences"
        return captioned(drawn, f"{begin}: {means}. {bars} Small rings: the seeds.")


def _effect(axis: Axes, row: Mapping[Any, Any], seeds: pd.Series) -> None:
    """One line of `figure`."""
    colour = OKABE_ITO[0] if row["low"] > 0 or row["high"] < 0 else "#555555"
    axis.plot([row["low"], row["high"]], [row["y"]] * 2, color=colour, linewidth=2)
    ring: dict[str, Any] = {"color": OKABE_ITO[1], "markersize": 4, "fillstyle": "none", "markeredgewidth": 0.9}
    axis.plot(seeds, [row["y"]] * len(seeds), "o", **ring)
    axis.plot(row["difference"], row["y"], "D", color=colour, markersize=5)


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Every effect, its scatter over seeds, and that it lies in its interval."""
    for row in numeric(rows, _ERRORS).to_dict("records"):
        what = f"{row['variant']} against {row['base']}, {row['measure']}"
        gaps = run_gaps(frame, row["variant"], row["base"], row["measure"])
        yield what, row["difference"], effect(gaps), EXACT
        if np.isfinite(deviation := seed_means(gaps).std(ddof=1)):
            yield f"{what}, over seeds", row["deviation"], deviation, EXACT
        if np.isfinite(row["low"]):
            yield from within(what, row)
