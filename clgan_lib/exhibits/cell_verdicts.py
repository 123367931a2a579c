"""Does a printed number hold? The runs on real images, and the rule that judges a number by them."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits.bootstrap import MEAN, paired_bootstrap
from clgan_lib.exhibits.run_table import METRICS, display, is_mvtec, published, read_csv
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.record import Record, read_record

HOLDS, FAILS, NOT_YET = "holds", "does not hold", "not testable here yet"
EPOCHS = 400  # of CUT; the paper states no number
SHORTEST, STEP = (
    2000,
    2,
)  # a curve of lengths begins at most there, in images; each is at most STEP times the one before
K = 3.0  # of Table 3
CELL = ["model", "category", "metric", "k"]  # what names a cell
GROUP = [*CELL, "size", "experiment", "row", "setting"]
EVIDENCE = ["ours", "low", "high", "interval", "images", "size", "run"]
_RUN = ["experiment", "row", "category", "seed"]
_COUNTS = ["images", "epochs", "scored", "used"]
Verdict = dict[str, Any]  # some columns of the ledger


def measurements(root: Path) -> pd.DataFrame:
    """A row per number, percent, of a run of the paper's models on real images of MVTec AD, dual threshold.

    `setting` is all options but the length; `k` is 0 but in a sweep; `scored` counts the defective images that are scored,
    `used` the good ones for training, held-out ones included.
    """
    paper, printed = published(), set(published("table4")["k"])
    records = [read_record(path.parent) for path in sorted(root.glob("*/*/*/seed*/metrics.json"))]
    used = [r for r in records if r.config.model in set(paper["model"]) and is_mvtec(Path(r.config.data_root).name)]
    rows = [row for record in used if "dual_threshold" in record.scores for row in _of_run(record)]
    frame = pd.DataFrame(rows, columns=[*GROUP, "seed", *_COUNTS, "value"])
    runs = frame.drop(columns=["k", "metric", "value"]).drop_duplicates()
    for path in sorted(root.glob("*/tables/table4.csv")):
        sweep = read_csv(path).rename(columns={"model": "row"}).assign(experiment=path.parts[-3])
        sweep = sweep[sweep["k"].isin(printed)].query("source == 'this run' and rule == ''")
        frame = pd.concat([frame, runs.merge(sweep.melt([*_RUN, "k"], ["F1", "IoU"], "metric"), on=_RUN)])
    keys = [name for name in (*GROUP, "seed") if name != "category"]
    whole = frame[
        frame.groupby(keys)["category"].transform("nunique") == paper["category"].nunique() - 1
    ]  # but the mean
    mean = whole.groupby(keys, as_index=False).agg(dict.fromkeys([*_COUNTS, "value"], "mean") | {"scored": "sum"})
    return pd.concat([frame, mean.assign(category=MEAN)]) if len(mean) else frame


def _of_run(record: Record) -> Iterator[Verdict]:
    config, counts, shown = record.config, record.images, record.time.images_seen or 0
    scored = sum(part["images"] for name, part in record.defects.items() if name not in record.left_out)
    options = [(config.model_extra or {}).get(name) for name in ("options", "crop", "precision")]
    run = {
        **{name: getattr(config, name) for name in ("experiment", "category", "seed")},
        "row": record.row, "model": display(config.model), "size": config.image_size, "k": 0.0, "images": shown,
        "epochs": shown / (counts.train or 1), "scored": scored or counts.test_defective or 1,
        "used": (counts.train or 0) + (counts.holdout or 0), "setting": json.dumps(options, sort_keys=True),
    }  # fmt: skip
    for metric in METRICS if config.k == K else ():
        yield run | {"metric": metric, "value": getattr(record.scores["dual_threshold"]["image"], metric)}
    for name in ("inside", "outside"):
        yield run | {"metric": name, "value": 100 * (getattr(record.residual, name) or 0)}


def by_setting(rows: pd.DataFrame) -> pd.DataFrame:
    """Seeds together: ours (their mean), low, high, and what the interval is of.

    Several seeds: a bootstrap over them. One seed: the widest that test images can make it, since git holds no scores of
    single images. Scores in [0, 100] of mean m have at most the variance m (100 - m).
    """
    found = []
    for key, part in rows.groupby(GROUP):
        seeds, (ours, low, high) = sorted(part["seed"]), paired_bootstrap([part["value"].to_numpy(float)])
        interval = "seeds" if len(seeds) > 1 else "images, widest" if key[2] in METRICS else "none"
        if interval == "images, widest":
            half = 1.96 * float(np.sqrt(ours * (100 - ours) / part["scored"].iloc[0]))
            low, high = max(0.0, ours - half), min(100.0, ours + half)
        place = dict(zip(GROUP, key, strict=True))
        place |= {"images": int(part["images"].max()), "epochs": part["epochs"].min()}
        run = "{experiment}/{row}/{category}/seed".format(**place) + ",".join(map(str, seeds))
        found.append(place | {"ours": ours, "low": low, "high": high, "interval": interval, "run": run})
    return pd.DataFrame(found, columns=[*GROUP, "epochs", *(name for name in EVIDENCE if name != "size")])


def nearest(rows: pd.DataFrame, value: float) -> Verdict:
    """Of runs at full size, and of smaller ones (`small_`), the nearest to a printed value."""
    found: Verdict = {}
    for prefix, part in (("", rows[rows["size"] == SIZE]), ("small_", rows[rows["size"] < SIZE])):
        if len(part):
            off = np.maximum(np.maximum(part["low"] - value, value - part["high"]), 0)
            order = part.assign(off=off, gap=(part["ours"] - value).abs()).sort_values(["off", "gap"], kind="stable")
            found |= {f"{prefix}{name}": order[name].tolist()[0] for name in EVIDENCE}
    return found


def judge(rows: pd.DataFrame, value: float) -> Verdict:
    """The verdict on a printed value by `rows` of `by_setting`.

    It holds where the interval of a full-size run includes it. It does not hold where a curve of lengths up to CUT's 400
    epochs was trained and no setting passes it between any two lengths.
    """
    found, full = nearest(rows, value), rows[rows["size"] == SIZE]
    if not len(full):
        return found | {"verdict": NOT_YET, "reason": f"no run at {SIZE}x{SIZE}"}
    if found["low"] <= value <= found["high"]:
        return found | {
            "verdict": f"{HOLDS} at {found['images']:,} images",
            "reason": f"interval of {found['interval']}",
        }
    passed, whole = False, False
    for _, curve in full.groupby("setting"):
        passed |= curve["low"].min() <= value <= curve["high"].max()
        lengths = [SHORTEST / STEP, *sorted(set(curve["images"]))]
        whole |= curve["epochs"].max() >= EPOCHS and all(b <= STEP * a for a, b in pairwise(lengths))
    if whole and not passed:
        return found | {"verdict": FAILS, "reason": f"no length up to {EPOCHS} epochs reaches it"}
    tried = ", ".join(f"{images:,}" for images in sorted(set(full["images"])))
    return found | {"verdict": NOT_YET, "reason": f"tried: {tried} images; no curve of lengths up to {EPOCHS} epochs"}
