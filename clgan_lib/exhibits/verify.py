"""Are the tables what the runs say? Every table of an experiment is made again from its runs' `metrics.json`.

    clgan verify [--maps] [EXPERIMENT ...]

An exhibit that needs more than `metrics.json` (Table 4, the protocols, the intervals) is printed again from its own CSV.
That CSV is held against `metrics.json` wherever both give the same number. With ``--maps`` each run's `metrics.json` itself
is measured again from its `maps.npz`, where it is there. One line per difference.

In a checkout the tables that git tracks are held against the runs that git tracks. Of what else lies in `results/` it says
what is wrong, and does not count it. An experiment that is named is held against all its runs.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits import committed, run_table
from clgan_lib.exhibits.crosscheck import EXACT
from clgan_lib.exhibits.registry import EXHIBITS, Exhibit, write_tables
from clgan_lib.paths import RESULTS
from clgan_lib.render.table import Table
from clgan_lib.runs.maps import read_evaluation
from clgan_lib.runs.record import measure_again, read_record

_SHOWN = 10  # faults of an experiment that git does not track: a foreign one has a line per table


def check_experiment(results_root: str | Path, experiment: str) -> Iterator[str]:
    """Every way in which an experiment's `tables/` and report differ from what its runs say.

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
        again, kept = Path(scratch), set()
        made = write_tables(frame, again)
        for exhibit in EXHIBITS.values():
            if exhibit.measure and (folder / f"{exhibit.name}.csv").is_file():
                tables, problems = _from_csv(exhibit, root / experiment, frame)
                kept |= {f"{exhibit.name}.{kind}" for kind in (("csv",) if tables else ("csv", "md", "tex"))}
                for table in tables:
                    table.write(again)
                made += tables
                yield from (f"{experiment}/tables/{exhibit.name}.csv{problem}" for problem in problems)
        for name in sorted({p.name for p in folder.glob("[!.]*")} | {p.name for p in again.iterdir()}):
            if name not in kept:
                yield from (f"{experiment}/tables/{name}{line}" for line in _compare(folder / name, again / name))
    report = root / experiment / "report.html"
    page = report.read_text(encoding="utf8") if report.is_file() else ""
    for table in made if page else ():
        if str(table.html()) not in page:
            yield f"{experiment}/report.html does not show {table.name} as its runs have it; make report"


def _compare(committed: Path, again: Path) -> Iterator[str]:
    """The first difference between a table's file and the same made again."""
    if not again.is_file():
        yield ": no code makes this file from the runs; remove it, or give it an entry in clgan_lib/exhibits/registry.py"
    elif not committed.is_file():
        yield " is missing; make report"
    elif committed.read_bytes() != again.read_bytes() and not (again.suffix == ".csv" and _equal_csv(committed, again)):
        old, new = (path.read_text(encoding="utf8", errors="replace").splitlines() for path in (committed, again))
        for number, (was, now) in enumerate(zip(old, new, strict=False), 1):
            if was != now:
                start = max(0, len(os.path.commonprefix([was, now])) - 20)
                shown = f"{was[start : start + 40]!r}, the runs say {now[start : start + 40]!r}"
                yield f", line {number}: there is {shown}; make report"
                return
        yield f" has {len(old)} lines, the runs give {len(new)}; make report"


def _equal_csv(a: Path, b: Path) -> bool:
    """Whether two files are CSVs that say the same, numbers to 1e-9 (another version of pandas may print a digit more)."""
    try:
        both = run_table.read_csv(a), run_table.read_csv(b)
        pd.testing.assert_frame_equal(*both, rtol=0, atol=EXACT, check_dtype=False)
    except (AssertionError, ValueError):
        return False
    return True


def _from_csv(exhibit: Exhibit, folder: Path, frame: pd.DataFrame) -> tuple[list[Table], list[str]]:
    """An exhibit's tables from its CSV, and where that CSV contradicts `metrics.json`."""
    tables: list[Table] = []
    try:
        rows = run_table.read_csv(folder / "tables" / f"{exhibit.name}.csv")
        tables += exhibit.tables(frame, rows)
        pairs = exhibit.check(folder.parent, frame, rows) if exhibit.check else ()
        wrong = [
            f": {what} is {has:.6g}, metrics.json gives {should:.6g}; make report"
            for what, has, should, off in pairs
            if not abs(has - should) <= off
        ]
        if set(rows["provenance"]) != {table.source for table in tables}:
            wrong.append(": its provenance is not that of the runs; make report")
    except FileNotFoundError as error:
        wrong = [f" cannot be checked: {error}"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        wrong = [f" cannot be read ({reason}); make report"]
    return tables, wrong


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


def check(experiments: Collection[str] = (), *, maps: bool = False, results_root: str | Path = RESULTS) -> int:
    """Print every difference between tables and runs; returns their number in what is named or committed.

    Args:
        experiments: held against all their runs. Empty: what git tracks, outside a checkout all that have tables.
        maps: measure every `metrics.json` again from its `maps.npz`, too.
    """
    root = Path(results_root)
    files = set() if experiments else committed.tracked(root)
    if not files:
        names = experiments or sorted(path.parent.name for path in root.glob("*/tables"))
        return sum(_tell(root, name, maps) for name in names)
    with tempfile.TemporaryDirectory() as scratch:
        held = committed.view(root, files, Path(scratch))
        names = sorted({file.parts[0] for file in files if file.parent.name == "tables"})
        total = sum(_tell(held, name, maps) for name in names)
    _tell_the_rest(root, files)
    return total


def _tell(root: Path, name: str, maps: bool) -> int:
    """Print what is wrong with an experiment, and a summary; returns the number of differences."""
    try:
        problems = list(check_experiment(root, name))
        if maps:
            for path in sorted((root / name).glob("*/*/seed*/metrics.json")):
                place = path.parent.relative_to(root).as_posix()
                problems += [f"{place}/{problem}" for problem in check_run(path.parent)]
    except (OSError, ValueError) as error:
        problems = [f"{name}: {error}"]
    print(*problems, sep="\n", end="\n" if problems else "")
    count = len(list((root / name / "tables").glob("[!.]*")))
    print(f"{name}: {count} tables' files, {f'{len(problems)} differences' if problems else 'all as the runs say'}")
    return len(problems)


def _tell_the_rest(root: Path, files: Collection[Path]) -> None:
    """Print what is wrong with runs and experiments that git does not track, which count for nothing."""
    known = {file.parts[0] for file in files}
    names = {path.relative_to(root).parts[0] for path in (*root.glob("*/tables"), *root.glob("*/*/*/seed*"))}
    for name in sorted(names):
        folders = sorted((root / name).glob("*/*/seed*"))
        beside = [folder for folder in folders if folder.relative_to(root) / "metrics.json" not in files]
        problems = [fault for folder in beside for fault in _fault(root, folder)]
        if name not in known and (root / name / "tables").is_dir():
            try:
                problems += check_experiment(root, name)
            except Exception as error:  # anything may lie there, and none of it may hide what is committed
                problems.append(f"{name} cannot be checked: {type(error).__name__}: {error}")
        if beside or name not in known:
            lines = list(dict.fromkeys(f"not in git: {problem}" for problem in problems))
            print(*lines[:_SHOWN], sep="\n", end="\n" if lines else "")
            more = f"; make verify VERIFY={name} " + ("counts them in" if name in known else "lists and counts all")
            print(f"{name}, not in git, not counted: runs {len(beside)}, faults {len(lines)}{more}")


def _fault(root: Path, folder: Path) -> Iterator[str]:
    """What keeps a run folder from being used, if anything does."""
    path = folder / "metrics.json"
    try:
        run_table.read_run(folder)
    except (OSError, ValueError) as error:
        yield f"{path.relative_to(root).as_posix()} is not used: {str(error).replace(str(path), 'it')}"
