"""Finished runs from elsewhere in one experiment, so that its tables and its report compare them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from clgan_lib.interop.experiment_archive import restore
from clgan_lib.ranking import RANKING
from clgan_lib.runs.config import RunConfig, model_folder
from clgan_lib.runs.folder import write_json, writing
from clgan_lib.runs.record import Record, read_record, write_record


def merge(
    sources: Sequence[str | Path],
    experiment: str,
    results_root: str | Path,
    *,
    keep: Literal["last", "all"] = "last",
    data_root: str = "",
) -> list[Path]:
    """Copy finished runs into an experiment: all of them or, after any error, none.

    Args:
        sources: run folders, folders with runs anywhere below, or archives of `clgan_lib.interop.experiment_archive`.
        experiment: the one that they become part of; made if it is not there.
        results_root: the folder that holds experiments.
        keep: of runs of one model, category and seed. ``"last"``: the new one takes the place of the old. ``"all"``: the
            new one becomes a variant, named ``<model>-2`` and so on.
        data_root: for archives, see `experiment_archive.restore`.

    Returns:
        The new run folders.

    Raises:
        ValueError: naming the run that is damaged, of another format, or evaluated otherwise than those of its category.
        FileNotFoundError: if a source is not there, or holds no finished run.
        FileExistsError: if an unfinished run is in the way.
        OSError: if the folder cannot be written.
    """
    folder, root = Path(results_root, RunConfig(experiment=experiment).experiment), Path(results_root)
    present = {path.parent: read_record(path.parent) for path in sorted(folder.glob("*/*/seed*/metrics.json"))}
    staged: dict[Path, Path] = {}
    with writing(root, "choose another results folder"):
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".") as scratch:
            runs = [run for i, source in enumerate(sources) for run in _runs(source, Path(scratch, str(i)), data_root)]
            for number, run in enumerate(runs):
                record = read_record(run)
                config = record.config.model_copy(update={"experiment": experiment, "results_root": ""})
                row, copies = model_folder(record.row), 1
                while keep == "all" and _place(folder, row, record) in present:
                    copies += 1
                    row = f"{model_folder(record.row)}-{copies}"
                    config = config.model_copy(update={"variant": row})
                target = _place(folder, row, record)
                if target.is_dir() and target not in present:
                    raise FileExistsError(f"{target} holds an unfinished run; finish it or remove it")
                _check(run, record, {place: other for place, other in present.items() if place != target})
                present[target], staged[target] = record, Path(scratch, f"run {number}")
                shutil.copytree(run, staged[target], ignore=shutil.ignore_patterns(".*"))
                write_json(staged[target] / "config.json", config.model_dump(exclude_unset=True))
                write_record(staged[target], record.model_copy(update={"config": config}))
            _exchange(staged, Path(scratch, "replaced"))
    return list(staged)


def _place(folder: Path, row: str, record: Record) -> Path:
    return folder / row / record.config.category / f"seed{record.config.seed}"


def _runs(source: str | Path, scratch: Path, data_root: str) -> list[Path]:
    """The finished run folders of a source, an archive unpacked into `scratch`."""
    source = Path(source)
    if source.is_file():
        return restore(source, scratch, data_root)
    runs = sorted(path.parent for path in source.rglob("metrics.json"))
    if not runs:
        raise FileNotFoundError(f"{source} is no archive and holds no finished run")
    return runs


def _check(run: Path, record: Record, present: dict[Path, Record]) -> None:
    """Refuse a run that was evaluated otherwise than this version does, or than the runs of its category in `present`."""
    if lacking := [name for name in RANKING if name not in record.ranking]:
        raise ValueError(
            f"{run} was measured by a version without {lacking[0]}; run `clgan measure` where its maps are"
        )
    for place, other in present.items():
        for name, own in _protocol(record).items():
            if other.config.category == record.config.category and own != (theirs := _protocol(other)[name]):
                remedy = "they cannot be compared; merge it into another experiment"
                raise ValueError(f"{run} was evaluated with {name} {own}, {place} with {theirs}: {remedy}")


def _protocol(record: Record) -> dict[str, object]:
    """What runs of one category have in common where they can be compared."""
    images = {f"{kind} test images": getattr(record.images, f"test_{kind}") for kind in ("good", "defective")}
    return {"k": record.config.k, "quantile": record.thresholds.quantile, "left-out types": record.left_out, **images}


def _exchange(staged: dict[Path, Path], replaced: Path) -> None:
    """Move every staged run to its place, and what was there to `replaced`; after an error everything back."""
    replaced.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for target, new in staged.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            for source, place in ((target, replaced / new.name), (new, target)):
                if source.exists():
                    moved.append((source, source.rename(place)))
    except OSError:
        for source, place in reversed(moved):
            place.rename(source)
        raise
