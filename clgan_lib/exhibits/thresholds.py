"""A benchmark of thresholds that need no label: each rule in use, on the same maps.

A rule (`clgan_lib.calibration`) sees the maps of held-out good images; the rule by synthetic anomalies also sees the model.
None sees a label of the test set. The *oracle* is the one threshold that is best on the test labels. Each rule's gap is
its distance to the oracle.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clgan_lib import calibration
from clgan_lib.calibration import Maps
from clgan_lib.data import load_category
from clgan_lib.exhibits.examples import runs_with_maps, scored_maps
from clgan_lib.exhibits.figures import legend_above, marker
from clgan_lib.exhibits.run_table import display
from clgan_lib.exhibits.tables import block, number, provenance
from clgan_lib.metrics import counts, metrics_of_counts
from clgan_lib.ranking import false_alarms
from clgan_lib.render.style import STYLE, captioned
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table
from clgan_lib.restoring.validation_anomalies import synthetic_anomaly_threshold
from clgan_lib.runs import execution
from clgan_lib.runs.evaluation import SIZE, anomaly_maps
from clgan_lib.runs.record import read_record

ORACLE = "oracle"
QUANTILES = (0.99, 0.995, 0.999)
# Column: head, decimals.
_COLUMNS = {
    "F1": ("F1", 1),
    "IoU": ("IoU", 1),
    "gap": ("gap to the oracle", 1),
    "false_images": ("good images marked", 1),
    "false_pixels": ("of their pixels", 2),
}
_SYNTHETIC = "synthetic anomalies"


def _rules(holdout: Maps, synthetic: float | None) -> dict[str, float]:
    """Thresholds that hold for all images, by the name of their rule; a rule that cannot be fitted is left out."""
    thresholds = {f"quantile {share:g}": calibration.quantile(holdout, share) for share in QUANTILES}
    thresholds["highest held-out pixel"] = float(holdout.max())
    fitted = {
        f"peaks over threshold, {calibration.PIXEL_RATE:g} of pixels": calibration.peaks_over_threshold,
        f"image maxima, {calibration.IMAGE_RATE:g} of images": calibration.image_maxima,
    }
    for name, rule in fitted.items():
        with suppress(ValueError):
            thresholds[name] = rule(holdout)
    return thresholds | ({} if synthetic is None else {_SYNTHETIC: synthetic})


def _rows(folder: Path, run: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    """The scores of one run under every rule and under the oracle's threshold."""
    maps = scored_maps(folder, run, ["scores", "masks", "holdout"])
    defective, good = maps["masks"].any((1, 2)), maps["defects"] == "good"
    truths = maps["masks"][defective]
    thresholds = _rules(maps["holdout"], _synthetic_threshold(folder)) if len(maps["holdout"]) else {}
    thresholds[ORACLE], _ = calibration.best_single(maps["scores"][defective], truths)
    masks = {f"mean + {run['k']:g}σ per image": calibration.mean_and_sigma(maps["scores"], run["k"])}
    masks |= {rule: maps["scores"] > threshold for rule, threshold in thresholds.items()}
    scores = {rule: metrics_of_counts(counts(mask[defective], truths)).mean(0) for rule, mask in masks.items()}
    for rule, mask in masks.items():
        false_positives = false_alarms(mask[good]) if good.any() else {}
        yield {
            **{key: run[key] for key in ("model", "category", "seed")}, "rule": rule,
            "threshold": thresholds.get(rule, float("nan")), "F1": scores[rule][2], "IoU": scores[rule][3],
            **{f"false_{share}": percent for share, percent in false_positives.items()},
            "gap": scores[ORACLE][2] - scores[rule][2],
        }  # fmt: skip


def _synthetic_threshold(folder: Path) -> float | None:
    """By synthetic anomalies on the run's held-out images; None without weights or data on this machine."""
    try:
        model = execution.load_model(folder)
        config = read_record(folder).run_config()
        train = load_category(execution.data_root(config), config.category, SIZE, config.bit_depth).train
    except (OSError, ValueError):
        return None
    held_out = train[execution.hold_out(config, len(train))]

    def score(images: NDArray[np.uint8]) -> Maps:
        """The model's maps of uint8 ``(H, S, S, 3)``, ``(H, S, S)``."""
        return anomaly_maps(model, torch.from_numpy(images).permute(0, 3, 1, 2))

    return synthetic_anomaly_threshold(held_out.permute(0, 2, 3, 1).numpy(), score)


def measure(results_root: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Every rule for every model on every category, the lowest seed's run with maps; empty where no run has maps.

    The threshold by synthetic anomalies only where the run's weights and data are on this machine.

    Returns:
        model, category, seed, rule, threshold (NaN where each image has its own), F1, IoU (percent, mean over the scored
        images with a defect), false_images, false_pixels (percent of the good test images with a false positive, and of
        their pixels), gap (F1 of the oracle minus F1; negative where a threshold per image beats the best single one),
        provenance.
    """
    runs = runs_with_maps(results_root, frame)
    measured = [row for run in runs for row in _rows(Path(results_root) / run["folder"], run)]
    return pd.DataFrame(measured).assign(provenance=provenance(frame))


def table(frame: pd.DataFrame, measured: pd.DataFrame) -> Table:
    """A block per model, a row per rule: means over categories; `measured` is not empty."""
    lines: list[Row] = []
    rules = _oracle_last(measured)
    whole = measured["category"].nunique()
    for model, mine in measured.groupby("model", sort=False):
        parts = {rule: mine[mine["rule"] == rule] for rule in rules}
        rows = ([Cell(rule, "label"), *(_mean(part, name, whole) for name in _COLUMNS)] for rule, part in parts.items())
        lines += block(display(str(model)), rows)
    caption = "Thresholds without labels: means over categories, the lowest seed's run; percent, the gap in points."
    notes = [
        "Oracle: the one threshold of the highest mean F1 on these test labels. A rule with a threshold for each image can "
        f"beat it. {_SYNTHETIC}: the highest F1 on held-out good images with synthetic anomalies of a family of their own. "
        f"(1/2): a mean over fewer categories. {NOT_APPLICABLE}: nothing was held out, or weights or data are not here."
    ]
    header = ["model", "rule", *(head for head, _ in _COLUMNS.values())]
    return Table("thresholds", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def _oracle_last(measured: pd.DataFrame) -> list[str]:
    return [*(rule for rule in measured["rule"].unique() if rule != ORACLE), ORACLE]


def _mean(part: pd.DataFrame, column: str, categories: int) -> Cell:
    values = part[column].dropna() if column in part else part.iloc[:0]
    if not len(values):
        return Cell(NOT_APPLICABLE, "hole")
    text = number(float(np.mean(values)), _COLUMNS[column][1], column == "gap")
    return Cell(text if len(values) == categories else f"{text} ({len(values)}/{categories})")


def figure(frame: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    """F1 under each label-free rule, and the share of good images with a false positive: a marker per model.

    `measured` is from `measure`, not empty.
    """
    rules, covered = _oracle_last(measured), measured.groupby("model")["category"].nunique()
    with mpl.rc_context(STYLE):
        drawn, axes = plt.subplots(1, 2, figsize=(8.2, 0.34 * len(rules) + 1.6), sharey=True)
        for axis, (column, head) in zip(
            axes, {"F1": "F1 %", "false_images": "good images marked %"}.items(), strict=True
        ):
            for i, (model, mine) in enumerate(measured.groupby("model", sort=False)):
                means = mine.groupby("rule")[column].mean().reindex(rules)
                fill: Any = "full" if covered[model] == measured["category"].nunique() else "none"
                axis.plot(means, range(len(rules)), markersize=5, fillstyle=fill, **marker(i, str(model)))
            axis.set_xlabel(head)
            axis.set_xlim(left=0)
        axes[0].set_yticks(range(len(rules)), rules)
        axes[0].invert_yaxis()
        legend_above(drawn, axes[:1], ncols=6)
        head = "Thresholds without labels, means over categories"
        hollow = " Hollow: a mean over fewer categories." if covered.nunique() > 1 else ""
        return captioned(drawn, f"{head}. Last row: the one threshold that is best on the test labels.{hollow}")
