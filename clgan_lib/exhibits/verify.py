"""Are the tables what the runs say? Every table of an experiment is made again from its runs' `metrics.json`.

    python -m clgan_lib.exhibits.verify [--maps] [experiment ...]

What needs more than `metrics.json` (Table 4, the conventions, the intervals) is printed again from its own CSV, and that
CSV is held against `metrics.json` wherever both give the same number. With ``--maps`` each run's `metrics.json` itself is
measured again from its `maps.npz`, where it is there. One line per difference; the exit code says whether there is any.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits import (
    ablation,
    bootstrap,
    chapters,
    k_sweep,
    protocols,
    rank_correlation,
    run_table,
    tables,
    threshold_free,
    thresholds,
)
from clgan_lib.paths import RESULTS
from clgan_lib.render.table import Table
from clgan_lib.runs.maps import read_evaluation
from clgan_lib.runs.record import measure_again, read_record

EXACT = 1e-9  # where two ways to the same number may differ: the last bits of a mean
ROUNDED = 2e-4  # scores.csv, which the intervals come from, holds percent with four decimals
# A convention of `protocols.csv` and the block of `metrics.json` that holds the same number.
SAME = {
    "per image, images with a defect": ("dual_threshold", "image"),
    "per image, good ones too": ("dual_threshold", "all"),
    "pixels pooled, all images": ("dual_threshold", "pooled"),
    "calibrated on good images, per image": ("calibrated", "image"),
    "calibrated on good images, pooled": ("calibrated", "pooled"),
}


def check_experiment(results_root: str | Path, experiment: str) -> Iterator[str]:
    """Every way in which an experiment's `tables/` and report differ from what its runs say, a line each.

    Args:
        results_root: the folder that holds experiments.
        experiment: one of them.

    Yields:
        ``<file>, line <n>: ...`` or ``<file>: ...``, with what to do.
    """
    root = Path(results_root)
    folder = root / experiment / "tables"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # collect's notes come back below
        frame = run_table.collect(root, experiment, run_table.expected_runs(experiment))
    yield from (f"{experiment}/{note}" for note in frame.attrs["notes"])
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch)
        made = [*tables.write_tables(frame, again, run_table.published("table3"))]
        for table in (threshold_free.table(frame), *chapters.network_tables(frame)):
            table.write(again)
            made.append(table)
        for table, problems in _from_csv(folder, frame):
            table.write(again)
            made.append(table)
            yield from (f"{experiment}/tables/{problem}" for problem in problems)
        own_csv = {path.name for path in folder.glob("*.csv")} - {"table3.csv"}
        known = {f"{table.name}.csv" for table in made} & own_csv
        for name in sorted({p.name for p in folder.glob("[!.]*")} | {p.name for p in again.iterdir()} - known):
            if name not in known:
                yield from (f"{experiment}/tables/{name}{line}" for line in _compare(folder / name, again / name))
    report = root / experiment / "report.html"
    page = report.read_text(encoding="utf8") if report.is_file() else ""
    for table in made if page else ():
        if str(table.html()) not in page:
            yield f"{experiment}/report.html does not show {table.name} as its runs have it; make report"


def _compare(committed: Path, again: Path) -> Iterator[str]:
    """The first difference between a table's file and the same made again."""
    if not again.is_file():
        yield ": no code makes this file from the runs; remove it, or teach clgan_lib/exhibits/verify.py what it is"
    elif not committed.is_file():
        yield " is missing; make report"
    elif committed.read_bytes() != again.read_bytes():
        old, new = (path.read_text(encoding="utf8", errors="replace").splitlines() for path in (committed, again))
        if committed.suffix == ".csv" and _equal_csv(committed, again):
            return
        for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
            if was != now:
                at = next(
                    (i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now))
                )
                start = max(0, at - 20)
                found = f"{was[start : at + 20]!r}, the runs say {now[start : at + 20]!r}"
                yield f", line {number}: there is {found}; make report"
                return
        yield f" has {len(old)} lines, the runs give {len(new)}; make report"


def _read(path: Path) -> pd.DataFrame:
    """A CSV as it was written: empty text stays text."""
    return pd.read_csv(path, keep_default_na=False)


def _equal_csv(a: Path, b: Path) -> bool:
    """Whether two CSVs say the same, numbers to 1e-9 (another version of pandas may print a digit more)."""
    try:
        pd.testing.assert_frame_equal(_read(a), _read(b), rtol=0, atol=EXACT, check_dtype=False)
    except (AssertionError, ValueError):
        return False
    return True


def _from_csv(folder: Path, frame: pd.DataFrame) -> Iterator[tuple[Table, list[str]]]:
    """The tables whose numbers stand in a CSV of their own, and where that CSV contradicts `metrics.json`."""
    source = tables.provenance(frame)
    for path in sorted(folder.glob("*.csv")):
        if path.stem == "table3":
            continue
        try:
            found = _read(path)
            if path.stem == "table4":
                table, pairs = k_sweep.table4(frame, found, run_table.published("table4")), _table4_pairs(frame, found)
            elif path.stem == "conventions":
                table, pairs = protocols.table(frame, found), _conventions_pairs(frame, found)
            elif path.stem.startswith("differences_"):
                table, pairs = bootstrap.difference_table(frame, found), _differences_pairs(frame, found)
            elif path.stem.startswith("variance_"):
                table, pairs = bootstrap.variance_table(frame, pd.read_csv(path)), iter(())
            elif path.stem in ("ablation", "ablation_2x2"):
                effects = pd.read_csv(path)
                make = ablation.table if path.stem == "ablation" else ablation.square_table
                table, pairs = make(frame, effects), _ablation_pairs(frame, effects)
            elif path.stem == "ranks":
                table, pairs = (
                    rank_correlation.table(pd.read_csv(path)),
                    _rank_pairs(folder.parents[1], pd.read_csv(path)),
                )
            elif path.stem == "thresholds":
                table, pairs = thresholds.table(frame, pd.read_csv(path)), iter(())
            else:
                continue
            wrong = [
                f"{path.name}: {what} is {has:.6g}, metrics.json gives {should:.6g}; make report"
                for what, has, should, off in pairs
                if not abs(has - should) <= off
            ]
            if set(found.get("provenance", ())) != {table.source if path.stem == "ranks" else source}:
                wrong.append(f"{path.name}: its provenance is not that of the runs; make report")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            wrong = [f"{path.name} cannot be read ({reason}); make report"]
            table = Table(path.stem, "", [], [])
        yield table, wrong


Pairs = Iterator[tuple[str, float, float, float]]  # what it is, the table's number, metrics.json's, how far apart


def _score(frame: pd.DataFrame, row: Mapping[Any, Any], metric: str, postprocess: str, average: str) -> float:
    """The number of one run in `metrics.json`; NaN where there is none."""
    rows = run_table.select(frame, postprocess, average)
    run = rows[(rows["model"] == row["model"]) & (rows["category"] == row["category"])]
    run = run[run["seed"] == row["seed"]] if "seed" in row else run
    return float(pd.to_numeric(run[metric], errors="coerce").mean()) if len(run) else float("nan")


def _table4_pairs(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    usual = frame["k"].dropna().unique()
    rows = found[(found["source"] == k_sweep.OURS) & (found["rule"] == k_sweep.GRID) & found["k"].isin(usual)]
    for row in rows.to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, k = {row['k']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, "dual_threshold", "image"), EXACT


def _conventions_pairs(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    for row in found[found["convention"].isin(SAME)].to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, {row['convention']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, *SAME[row["convention"]]), EXACT


def _differences_pairs(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    """Differences, and that each lies in its interval.

    A difference is over the images that both models have, so it is that of the runs' means, and is held against them, only
    where all their runs scored the same images: not with an import that lacks some, or other types left out.
    """
    for row in found[found["category"] != bootstrap.MEAN].to_dict("records"):
        models = frame["model"].isin([row["model"], row["reference"]])
        runs = frame[models & (frame["category"] == row["category"]) & frame["found"].astype(bool)]
        whole = all(not text or re.search(r"\b(\d+) of \1 test images$", text) for text in runs["imported"])
        ours, theirs = (
            _score(frame, {"model": row[name], "category": row["category"]}, "F1", "dual_threshold", "image")
            for name in ("model", "reference")
        )
        if whole and runs["left_out"].nunique() < 2:
            yield f"{row['model']} on {row['category']}", float(row["difference"]), ours - theirs, ROUNDED
        yield f"{row['model']}, lower bound", min(float(row["low"]), float(row["difference"])), float(row["low"]), 0.0
        yield f"{row['model']}, upper bound", max(float(row["high"]), float(row["difference"])), float(row["high"]), 0.0


def _ablation_pairs(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    for row in found.to_dict("records"):
        what = f"{row['variant']} against {row['base']}, {row['measure']}"
        gaps = ablation.run_gaps(frame, row["variant"], row["base"], row["measure"])
        yield what, float(row["difference"]), ablation.effect(gaps), EXACT
        if len(ablation.seed_means(gaps)) > 1:
            yield f"{what}, over seeds", float(row["deviation"]), float(ablation.seed_means(gaps).std(ddof=1)), EXACT
        if not np.isnan(row["low"]):
            yield f"{what}, lower bound", min(row["low"], row["difference"]), row["low"], 0.0
            yield f"{what}, upper bound", max(row["high"], row["difference"]), row["high"], 0.0


def _rank_pairs(root: Path, found: pd.DataFrame) -> Pairs:
    """Of the experiments that the ranking is about, each whose runs are here: it need not be committed."""
    for side in rank_correlation.SIDES:
        name = str(found[f"{side}_experiment"].iloc[0])
        if not any((root / name).glob("*/*/seed*/metrics.json")):
            continue
        again = rank_correlation.means(root, name)
        for row in found[found["category"] != bootstrap.MEAN].to_dict("records"):
            what = f"{row['model']} on {row['category']}, {row['measure']}, {side}"
            should = again.get((row["measure"], row["category"], row["model"]), float("nan"))
            yield what, float(row[side]), float(should), EXACT


def check_run(folder: Path) -> Iterator[str]:
    """Where a run's `metrics.json` is not what its own `maps.npz` gives; nothing where it kept no maps."""
    if not (folder / "maps.npz").is_file():
        return
    try:
        record, evaluation = read_record(folder), read_evaluation(folder)
        content, again = record.content(), measure_again(record, evaluation)
        if len(evaluation.holdout):
            quantile = record.run_config().quantile
            again["thresholds"] = {"calibrated": float(np.quantile(evaluation.holdout, quantile)), "quantile": quantile}
    except (KeyError, TypeError, ValueError) as error:
        yield f"maps.npz cannot be measured ({type(error).__name__}: {error}); run it again"
        return
    for key, value in again.items():
        yield from _unequal(content.get(key), value, f"metrics.json: {key}")


def _unequal(has: Any, should: Any, where: str) -> Iterator[str]:
    """Where two nested values differ, numbers by more than 1e-9 of their size."""
    if isinstance(should, dict) and isinstance(has, dict):
        for key in sorted({*should, *has}):
            yield from _unequal(has.get(key), should.get(key), f"{where}.{key}")
    elif isinstance(should, float) and isinstance(has, int | float):
        if not abs(has - should) <= EXACT * max(1.0, abs(should)):
            yield f"{where} is {has:.10g}, maps.npz gives {should:.10g}; run it again"
    elif has != should:
        yield f"{where} is {json.dumps(has)}, maps.npz gives {json.dumps(should)}; run it again"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns how many differences there are, at most 100."""
    parser = argparse.ArgumentParser(
        prog="python -m clgan_lib.exhibits.verify", description="Are the tables what the runs say?"
    )
    parser.add_argument("experiments", nargs="*", help="all that have tables, unless named")
    parser.add_argument("--maps", action="store_true", help="measure every metrics.json again from its maps.npz, too")
    parser.add_argument("--results-root", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    root: Path = chosen.results_root
    names = chosen.experiments or sorted(path.parent.name for path in root.glob("*/tables"))
    total = 0
    for name in names:
        try:
            problems = list(check_experiment(root, name))
            if chosen.maps:
                for path in sorted((root / name).glob("*/*/seed*/metrics.json")):
                    place = path.parent.relative_to(root).as_posix()
                    problems += [f"{place}/{problem}" for problem in check_run(path.parent)]
        except (OSError, ValueError) as error:
            problems = [f"{name}: {error}"]
        print(*problems, sep="\n", end="\n" if problems else "")
        files = len(list((root / name / "tables").glob("[!.]*")))
        print(f"{name}: {files} tables' files, {f'{len(problems)} differences' if problems else 'all as the runs say'}")
        total += len(problems)
    return min(total, 100)


if __name__ == "__main__":
    sys.exit(main())
