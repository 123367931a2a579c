"""The ledger: a verdict on each cell of the paper's Tables 3 and 4, and on each of its sentences that can be tested.

    make ledger        write results/ledger/ledger.csv from what git holds

A number is judged by the runs on real images (`judge`). The sentences are in ``docs/claims.csv``. Each names the function of
this module that judges it, and its argument.
"""

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from clgan_lib.audit import SWEEP, columns, read_table
from clgan_lib.audit.surface import pooled_possible
from clgan_lib.clgan import CLGAN
from clgan_lib.data_checks import OFFICIAL
from clgan_lib.exhibits import committed, network_summary
from clgan_lib.exhibits.bootstrap import MEAN, paired_bootstrap
from clgan_lib.exhibits.run_table import METRICS, display, is_mvtec, published, read_csv, write_csv
from clgan_lib.paths import RESULTS, ROOT
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.record import Record, read_record

HOLDS, FAILS, NOT_YET = "holds", "does not hold", "not testable here yet"
IMPOSSIBLE, UNTESTED = "impossible as printed", "not testable here"
EPOCHS = 400  # of CUT; the paper states no number
SHORTEST = 2000  # images; a curve of lengths begins at most there
STEP = 2  # each length of a curve is at most so many times the one before
K = 3.0  # of Table 3
OURS, PAPER = "CLGAN", RESULTS / "paper"
CELL = ["model", "category", "metric", "k"]  # what names a cell
GROUP = [*CELL, "size", "experiment", "row", "setting"]
EVIDENCE = ["ours", "low", "high", "interval", "images", "size", "run"]
COLUMNS = (
    "claim", "source", "published", "ours", "low", "high", "verdict", "run", "reason", "interval", "images",
    *(f"small_{name}" for name in EVIDENCE), *CELL,
)  # fmt: skip
_RUN = ["experiment", "row", "category", "seed"]
_COUNTS = ["images", "epochs", "scored", "used"]
_GAP = ["difference", "low", "high"]  # of a rival against CLGAN
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
    products = paper["category"].nunique() - 1  # without the mean
    whole = frame[frame.groupby(keys)["category"].transform("nunique") == products]
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
    together = []
    for key, part in rows.groupby(GROUP):
        seeds, (ours, low, high) = sorted(part["seed"]), paired_bootstrap([part["value"].to_numpy(float)])
        interval = "seeds" if len(seeds) > 1 else "images, widest" if key[2] in METRICS else "none"
        if interval == "images, widest":
            half = 1.96 * float(np.sqrt(ours * (100 - ours) / part["scored"].iloc[0]))
            low, high = max(0.0, ours - half), min(100.0, ours + half)
        place = dict(zip(GROUP, key, strict=True))
        place |= {"images": int(part["images"].max()), "epochs": part["epochs"].min()}
        run = "{experiment}/{row}/{category}/seed".format(**place) + ",".join(map(str, seeds))
        together.append(place | {"ours": ours, "low": low, "high": high, "interval": interval, "run": run})
    return pd.DataFrame(together, columns=[*GROUP, "epochs", *(name for name in EVIDENCE if name != "size")])


def nearest(rows: pd.DataFrame, value: float) -> Verdict:
    """Of runs at full size, and of smaller ones (`small_`), the nearest to a printed value."""
    nearby: Verdict = {}
    for prefix, part in (("", rows[rows["size"] == SIZE]), ("small_", rows[rows["size"] < SIZE])):
        if len(part):
            off = np.maximum(np.maximum(part["low"] - value, value - part["high"]), 0)
            order = part.assign(off=off, gap=(part["ours"] - value).abs()).sort_values(["off", "gap"], kind="stable")
            nearby |= {f"{prefix}{name}": order[name].tolist()[0] for name in EVIDENCE}
    return nearby


def judge(rows: pd.DataFrame, value: float) -> Verdict:
    """The verdict on a printed value by `rows` of `by_setting`.

    It holds where the interval of a full-size run includes it. It does not hold where a curve of lengths up to CUT's 400
    epochs was trained and no setting passes it between any two lengths.
    """
    nearby, full = nearest(rows, value), rows[rows["size"] == SIZE]
    if not len(full):
        return nearby | {"verdict": NOT_YET, "reason": f"no run at {SIZE}x{SIZE}"}
    if nearby["low"] <= value <= nearby["high"]:
        verdict = f"{HOLDS} at {nearby['images']:,} images"
        return nearby | {"verdict": verdict, "reason": f"interval of {nearby['interval']}"}
    passed, whole = False, False
    for _, curve in full.groupby("setting"):
        passed |= curve["low"].min() <= value <= curve["high"].max()
        lengths = [SHORTEST / STEP, *sorted(set(curve["images"]))]
        whole |= curve["epochs"].max() >= EPOCHS and all(b <= STEP * a for a, b in pairwise(lengths))
    if whole and not passed:
        return nearby | {"verdict": FAILS, "reason": f"no length up to {EPOCHS} epochs reaches it"}
    tried = ", ".join(f"{images:,}" for images in sorted(set(full["images"])))
    return nearby | {"verdict": NOT_YET, "reason": f"tried: {tried} images; no curve of lengths up to {EPOCHS} epochs"}


class Sources(NamedTuple):
    """All that a claim may be judged by."""

    root: Path  # the folder that holds experiments
    runs: pd.DataFrame  # from `measurements`
    evidence: pd.DataFrame  # from `by_setting`
    tables: pd.DataFrame  # the cells of Tables 3 and 4
    findings: pd.DataFrame  # of the audit, what is not consistent
    facts: dict[str, object]  # what the judge `equals` knows, by name

    def missing(self, category: str) -> str:
        """Why a category cannot be tested; empty where it has runs."""
        wanted = [category] if category != MEAN else sorted({*self.tables["category"]} - {MEAN})
        lacking = [name for name in wanted if name not in set(self.runs["category"])]
        return f"no run on real images of {', '.join(lacking)}" if lacking else ""


def _at(frame: pd.DataFrame, place: list[Any]) -> pd.DataFrame:
    return frame[(frame[CELL] == place).all(axis=1)]


def _cell(sources: Sources, cell: Verdict) -> Verdict:
    """The verdict on one cell. The audit outweighs every run."""
    place, absent = [cell[name] for name in CELL], sources.missing(cell["category"])
    rows = _at(sources.evidence, place)
    verdict = {"verdict": UNTESTED, "reason": absent} if absent else judge(rows, cell["percent"])
    for item in _at(sources.findings, place).to_dict("records"):
        impossible = item["verdict"] == "impossible"
        verdict["reason"] = item["sentence"] if impossible else f"{verdict['reason']}; suspicious: {item['sentence']}"
        verdict["verdict"] = IMPOSSIBLE if impossible else verdict["verdict"]
    claim = "{model} on {category}: {metric}".format(**cell) + (f" at k = {cell['k']}" if cell["k"] else "")
    return cell | verdict | {"claim": claim, "published": cell["percent"]}


def equals(sources: Sources, argument: str) -> Verdict:
    """Whether the fact before the "=" is what the paper says, which is after it."""
    name, _, said = argument.partition("=")
    ours = str(sources.facts[name])
    return {"published": said, "ours": ours, "verdict": HOLDS if ours == said else FAILS}


def untested(_: Sources, __: str) -> Verdict:
    """Why, is the claim's own reason."""
    return {"verdict": UNTESTED}


def figure(sources: Sources, argument: str) -> Verdict:
    """What a figure shows of one image has no verdict; our number of that model, category and metric stands beside it."""
    place = [*argument.split(), 0.0]
    printed = _at(sources.tables, place)["percent"].mean()  # of one cell, or none
    nearby = nearest(_at(sources.evidence, place), float(np.nan_to_num(printed)))
    reason = sources.missing(str(place[1])) or f"the figure names no image and no measure; beside it {place[2]}"
    return {"verdict": UNTESTED, "published": printed, "reason": reason, **nearby}


def versus(sources: Sources, rival: str) -> Verdict:
    """CLGAN's F1 minus a rival's, mean over products: as printed, and of our runs with the interval over images."""
    means = sources.tables.query("metric == 'F1' and category == @MEAN").set_index("model")["percent"]
    printed, beside = means[OURS] - means[display(rival)], []
    for path in sorted(sources.root.glob("*/tables/differences_clgan.csv")):
        runs = sources.runs[(sources.runs[["experiment", "row"]] == [path.parts[-3], rival]).all(axis=1)]
        gaps = read_csv(path).query("model == @rival and category == @MEAN")[_GAP].to_numpy(float)
        size, images = runs["size"].max(), runs["images"].max()
        if len(gaps) and (size < SIZE or MEAN in set(runs["category"])):  # at full size on all products only
            gap, high, low = -gaps[0]
            beside.append((gap, low, high, "images", int(images), size, f"{path.parts[-3]}/clgan against {rival}"))
    nearby = nearest(pd.DataFrame(beside, columns=EVIDENCE), printed)
    verdict = f"{HOLDS} at {nearby['images']:,} images" if nearby.get("low", 0) > 0 else NOT_YET
    reason = f"points of F1; a verdict needs runs at {SIZE}x{SIZE} on all products"
    return nearby | {"published": printed, "verdict": verdict, "reason": reason}


def best_k(sources: Sources, category: str) -> Verdict:
    """The k of Table 4 with the highest F1, judged as a cell is."""
    rows = sources.evidence.query("model == @OURS and category == @category and metric == 'F1' and k > 0")
    top = rows.sort_values("ours", ascending=False).drop_duplicates(GROUP[4:])
    absent, top = sources.missing(category), top.assign(ours=top["k"], low=top["k"], high=top["k"], interval="none")
    return {"published": K} | ({"verdict": UNTESTED, "reason": absent} if absent else judge(top, K))


_JUDGES = {function.__name__: function for function in (equals, untested, figure, versus, best_k)}


@cache
def _network_facts() -> dict[str, object]:
    with torch.random.fork_rng():
        model = CLGAN(image_size=SIZE)
    d, h = network_summary.discriminator_table(model.discriminator, SIZE), network_summary.head_table(model.heads)
    path = network_summary.generator_table(model.generator, SIZE)["output"].tolist()
    layers = [layer for part in (model.generator, model.discriminator) for layer in part.modules()]
    return {
        "G": path[-1], "D": len(d), "H": len(h), "H1": f"{h['type'].iloc[0]} {h['output'].iloc[0]}",
        **{f"D{number}": output for number, output in enumerate(d["output"], 1)},
        "symmetric": "yes" if path[1:4] == path[-4:-1][::-1] else "no",  # encoder, decoder
        "layers": " ".join(sorted({type(layer).__name__ for layer in layers if list(layer.parameters(recurse=False))})),
    }  # fmt: skip


def _facts(runs: pd.DataFrame, table3: pd.DataFrame, table4: pd.DataFrame, audited: pd.DataFrame) -> dict[str, object]:
    """What `equals` knows: counted on our modules, on the data set's official numbers, and on the paper's tables."""
    train, *test = np.sum(list(OFFICIAL.values()), axis=0)
    good = runs["category"].map({MEAN: 0} | {name: numbers[0] for name, numbers in OFFICIAL.items()})
    cells = table3.pivot(index=["metric", "category"], columns="model", values="percent")
    best = cells.idxmax(axis=1)[cells.eq(cells.max(axis=1), axis=0).sum(axis=1) == 1]  # a tie is nobody's
    ours = best.drop(MEAN, level="category") == OURS
    series = table4.pivot(index="k", columns=["metric", "category"], values="percent")
    return {
        **_network_facts(),
        **{"training": train, "test": sum(test), "images": train + sum(test), "categories": len(OFFICIAL)},
        "only good": "yes" if ((runs["used"] == good) | (good == 0)).all() else "no",
        **{f"highest mean {metric}": model for metric, model in best.xs(MEAN, level="category").items()},
        "best cells": ours.sum(),
        **{f"best {metric}": count for metric, count in ours.groupby("metric").sum().items()},
        "pooled columns": sum(pooled_possible(*c.box()) for c in columns(table3) if c.category != MEAN),
        **{str(check): (rows["verdict"] == "consistent").sum() for check, rows in audited.groupby("check")},
        "highest at the last k": (series.iloc[-1] == series.max()).sum(),
    }


def build(root: Path = RESULTS) -> pd.DataFrame:
    """The ledger of the runs under `root`: a row per claim, `COLUMNS`, empty where a claim has no such number.

    ours, low, high, interval and images are of the run at 256x256 that is nearest to the printed value; small_* are of a
    smaller one.
    """
    runs, findings = measurements(root), read_csv(PAPER / "audit.csv").fillna({"k": 0.0})
    table3, table4 = read_table(PAPER / "table3.csv"), read_table(PAPER / "table4.csv", SWEEP)
    facts = _facts(runs, table3, table4, findings)
    tables = pd.concat([table3.assign(k=0.0, source="Table 3"), table4.assign(model=OURS, source="Table 4")])
    sources = Sources(root, runs, by_setting(runs), tables, findings[findings["verdict"] != "consistent"], facts)
    rows = []
    for claim in pd.read_csv(ROOT / "docs/claims.csv", keep_default_na=False).to_dict("records"):
        verdict = _JUDGES[claim["judge"]](sources, claim["argument"])
        verdict["reason"] = claim["reason"] or verdict.get("reason", "")
        rows.append(verdict | {"claim": claim["claim"], "source": claim["source"]})
    rows += [_cell(sources, dict(zip(tables.columns, cell, strict=True))) for cell in tables.itertuples(index=False)]
    frame = pd.DataFrame(rows, columns=COLUMNS).map(lambda v: round(float(v), 4) if isinstance(v, float) else v)
    return frame.astype(dict.fromkeys(("images", "small_images", "small_size"), "Int64"))


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many claims of a ledger have which verdict: a row per model of Table 3, for Table 4, and for the sentences."""
    of_cells = frame["metric"].fillna("") != ""
    where = (frame["source"] + ", " + frame["model"].fillna("")).where(of_cells, "Sentences")
    kinds = frame["verdict"].str.replace(r" at [\d,]+ ", " at N ", regex=True)
    order = [HOLDS, f"{HOLDS} at N images", FAILS, IMPOSSIBLE, NOT_YET, UNTESTED]
    return pd.crosstab(where.rename("claims"), kinds).reindex(columns=order, fill_value=0).reindex(where.unique())


def write() -> None:
    """Write the ledger of the runs that git tracks; of all runs outside a checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        files = committed.tracked(RESULTS)
        frame = build(committed.view(RESULTS, files, Path(scratch)) if files else RESULTS)
    print(write_csv(frame, RESULTS / "ledger/ledger.csv"))
