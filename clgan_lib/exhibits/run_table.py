"""From the `metrics.json` of every run to one tidy table: a row per run and convention, a hole per missing run.

Nothing else is read: maps and weights may be on another machine. `clgan_lib.exhibits.tables` lays the rows out as the
paper does.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clgan_lib.metrics import AVERAGES
from clgan_lib.paths import RESULTS, ROOT, safe_name
from clgan_lib.ranking import RANKING
from clgan_lib.render.table import write_text
from clgan_lib.runs.config import EMBEDDED, model_folder
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.record import Record, read_record

METRICS = ("P", "R", "ACC", "F1", "IoU")  # in the order of the paper's Table 3
MODEL_NAMES = {
    "udcae": "UDCAE",
    "dcgan": "DCGAN",
    "vae_ssim": "VAE-SSIM",
    "clgan": "CLGAN",
    "clgan_r": "CLGAN-R",
    "clgan_rc": "CLGAN-RC",
    "blur": "blur",
    "template": "template",
}
CONTROLS = ("blur", "template")  # methods without learning
MVTEC = {
    "mvtec",
    "mvtecad",
    "mvtecanomalydetection",
}  # names of a data root, without punctuation, that hold the real one

FALSE_ALARMS = ("false_images", "false_pixels")  # percent of the good test images, and of their pixels
COSTS = ("train_s", "images_seen", "steps", "images_per_s", "evaluate_s", "peak_bytes")
ENVIRONMENT = ("device", "device_name", "python", "torch", "torchvision", "numpy", "opencv", "commit", "dirty")
KEYS = ("experiment", "data", "model", "category", "seed", "postprocess", "average", "subset", "scored", "found")
COLUMNS = (
    *KEYS,
    *METRICS,
    *RANKING,
    *FALSE_ALARMS,
    "inside",
    "outside",
    "image_size",
    "left_out",
    *COSTS,
    *ENVIRONMENT,
    "fingerprint",
    "folder",
    "imported",
)

Expected = Sequence[tuple[str, str, int]]


def display(model: str) -> str:
    """How a model is called in print: the paper's name, or for a reader's own ``package.module:Class`` its class."""
    return MODEL_NAMES.get(model, model.rpartition(":")[2])


def expected_runs(experiment: str) -> list[tuple[str, str, int]]:
    """The (model or variant, category, seed) that ``config/<experiment>.yaml`` asks for; none without such a file."""
    if not (ROOT / "config" / f"{safe_name(experiment, 'experiment')}.yaml").is_file():
        return []
    return [(run.row, run.category, run.seed) for run in Experiment.load(experiment).runs()]


def collect(results_root: str | Path, experiment: str, expected: Expected = ()) -> pd.DataFrame:
    """One tidy row per run, subset, post-processing and averaging; one row per missing run.

    Args:
        results_root: the folder that holds experiments.
        experiment: the one to read.
        expected: (model, category, seed) of the runs that should be there. A model found beyond these should have every
            category and seed, too. Without the list, what is missing is told from what is there.

    Returns:
        Columns: experiment, data, model, category, seed, postprocess, average, subset, scored (False for a subset that
        is shown beside the run's own), found, P, R, ACC, F1, IoU (percent), gain (F1 over the template's, points),
        the measures of `clgan_lib.ranking`, false_images and false_pixels (percent of the good test images, and of their
        pixels, that this post-processing marks), inside, outside, and the run's provenance. A run of an older version
        has holes where it lacks a measure. Models are in the paper's order, controls last.
        ``attrs["notes"]`` lists each file that was not used, and why; each is a warning too.

    Raises:
        ValueError: if `experiment` cannot name a folder.
        FileNotFoundError: if there is neither such an experiment nor a list of what to expect.
    """
    folder = Path(results_root) / safe_name(experiment, "experiment")
    if not folder.is_dir() and not expected:
        raise FileNotFoundError(f"experiment: no runs of {experiment!r} in {folder.parent.name}/; train some first")
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in sorted(folder.glob("*/*/seed*/metrics.json")):
        try:
            rows += read_run(path.parent)  # all of them or none
        except ValueError as error:
            reason = str(error).removeprefix(f"{path}: ").replace(str(path), "it")
            notes.append(f"{path.relative_to(folder).as_posix()} is not used: {reason}")
    found = {(row["model"], row["category"], row["seed"]): True for row in rows}
    known = list(expected) or list(found)
    extra = [model for model in _nth(found, 0) if model not in _nth(known, 0)] if expected else _nth(found, 0)
    wanted = [*expected, *itertools.product(extra, _nth(known, 1), _nth(known, 2))]
    blank = {"experiment": experiment, "found": False, "scored": True, "left_out": (), "imported": ""}
    rows += [blank | {"model": m, "category": c, "seed": s} for m, c, s in wanted if (m, c, s) not in found]
    frame = with_gain(_in_order(pd.DataFrame(rows), wanted))
    frame.attrs["notes"] = notes
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return frame


def read_run(folder: Path) -> list[dict[str, Any]]:
    """The tidy rows of one run folder.

    Raises:
        FileNotFoundError: if the run did not finish.
        ValueError: if its `metrics.json` is damaged, of another format, or of another run.
    """
    return list(_rows(read_record(folder), folder))


def _rows(record: Record, folder: Path) -> Iterator[dict[str, Any]]:
    """The tidy rows of one run."""
    config, place = record.config, folder.parts[-4:]
    if place != (config.experiment, model_folder(record.row), config.category, f"seed{config.seed}"):
        owner = f"{config.experiment}, {record.row}, {config.category}, seed {config.seed}"
        raise ValueError(f"it belongs to {owner}; move it back")
    imported = record.imported
    base = {
        **{name: getattr(config, name) for name in ("experiment", "category", "seed", "image_size", "k")},
        "model": record.row,
        "data": Path(config.data_root).name or EMBEDDED,
        "left_out": tuple(record.left_out),
        "threshold": record.thresholds.calibrated,
        "quantile": record.thresholds.quantile,
        "found": True,
        "inside": record.residual.inside,
        "outside": record.residual.outside,
        **{f"{name}_images": count for name, count in record.images},
        **{name: getattr(record.time, name) for name in COSTS},
        **{name: record.env.get(name) for name in ENVIRONMENT},
        "fingerprint": record.fingerprint,
        "folder": "/".join(place),
        "imported": f"{imported.source}; {imported.scored} of {imported.of} test images" if imported else "",
    }
    for subset, block in record.blocks().items():
        for postprocess, averages in block.scores.items():
            alarms = record.false_alarms.get(postprocess)  # absent in runs of older versions
            marked = {} if alarms is None else {"false_images": alarms.images, "false_pixels": alarms.pixels}
            for average, scores in averages.items():
                key = {"subset": subset, "scored": block is record, "postprocess": postprocess, "average": average}
                ranking = {name: block.ranking.get(name) for name in RANKING}
                yield base | key | marked | ranking | {name: getattr(scores, name) for name in METRICS}


def _nth(keys: Iterable[tuple[str, str, int]], index: int) -> list[Any]:
    return sorted({key[index] for key in keys})


def _in_order(frame: pd.DataFrame, wanted: Expected) -> pd.DataFrame:
    """Models as in the paper, then a reader's own, then controls; categories and seeds by name."""
    frame = frame.reindex(columns=[*COLUMNS, *(name for name in frame.columns if name not in COLUMNS)])
    learned = [name for name in MODEL_NAMES if name not in CONTROLS]
    rank = {name: i for i, name in enumerate(learned)} | {name: 1000 + i for i, name in enumerate(CONTROLS)}
    first = {model: len(learned) + i for i, model in enumerate(dict.fromkeys(m for m, _, _ in wanted))}
    place = [rank.get(model, first.get(model, 999)) for model in frame["model"]]
    order = frame.assign(place=place).sort_values(["place", "model", "category", "seed"], kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def with_gain(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `gain`: F1 minus the template's, same category, convention and seed (its mean where it has not that seed)."""
    key = ["category", "postprocess", "average", "subset"]
    floor = frame.loc[(frame["model"] == "template") & frame["found"], [*key, "seed", "F1"]]
    same = frame.merge(floor, on=[*key, "seed"], how="left", suffixes=("", "_floor"))["F1_floor"]
    mean = frame.merge(floor.groupby(key)["F1"].mean().reset_index(), on=key, how="left", suffixes=("", "_floor"))
    frame["gain"] = frame["F1"].astype(float) - same.fillna(mean["F1_floor"]).astype(float)
    return frame


def select(
    frame: pd.DataFrame, postprocess: str = "dual_threshold", average: str = "image", subset: str | None = None
) -> pd.DataFrame:
    """The rows of one convention: at most one per model, category and seed, a hole where there is none.

    Args:
        frame: from `collect`.
        postprocess: ``"dual_threshold"``, ``"calibrated"`` or ``"native"``.
        average: ``"image"``, ``"pooled"`` or ``"all"``.
        subset: ``"every type"``, or None for what each run's settings score.
    """
    runs = frame[["experiment", "model", "category", "seed", "found"]].drop_duplicates()
    rows = frame[(frame["postprocess"] == postprocess) & (frame["average"] == average)]
    rows = rows[rows["scored"].astype(bool)] if subset is None else rows[rows["subset"] == subset]
    rest = rows.drop(columns=["experiment", "found"])
    return runs.merge(rest, on=["model", "category", "seed"], how="left")


def published(table: str = "table3") -> pd.DataFrame:
    """The paper's Table 3 or 4 as printed, from ``results/paper``, with our names for the models.

    Returns:
        Table 3: metric, model, category (also "mean"), percent; Table 4: metric, category, k, percent.
    """
    frame = pd.read_csv(RESULTS / "paper" / f"{table}.csv")
    if "model" in frame:
        frame["model"] = frame["model"].map({shown: name for name, shown in MODEL_NAMES.items()})
    return frame


def is_mvtec(data: str) -> bool:
    """Whether a data root of this name should hold the real MVTec AD, so that published numbers speak of the same."""
    return "".join(filter(str.isalpha, str(data).lower())) in MVTEC and not is_mvtec_2(data)


def is_mvtec_2(data: str) -> bool:
    """Whether a data root of this name should hold MVTec AD 2, which is another data set."""
    return "".join(filter(str.isalnum, str(data).lower())) in {name + "2" for name in MVTEC}


def credit(data: Iterable[str]) -> str:
    """How a figure names its images: the data roots, and for MVTec AD and MVTec AD 2 what their licence asks for."""
    names = list(dict.fromkeys(data))
    papers = {False: "MVTec AD, Bergmann et al., CVPR 2019", True: "MVTec AD 2, Heckler-Kram et al., arXiv:2503.21622"}
    theirs = {papers[is_mvtec_2(name)] for name in names if "mvtec" in name.lower()}
    owner = f" ({'; '.join(sorted(theirs))}; MVTec Software GmbH, CC BY-NC-SA 4.0; at 256 x 256)" if theirs else ""
    return f"Data: {', '.join(names)}{owner}."


def available(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The (post-processing, averaging) pairs there are numbers for, the paper's first."""
    order = {"dual_threshold": 0, "calibrated": 1, "native": 2}
    names = sorted(frame["postprocess"].dropna().unique(), key=lambda name: (order.get(name, 9), name))
    return [(postprocess, average) for postprocess in names for average in AVERAGES]


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write the tidy table whole or not at all; returns `path`."""
    if "left_out" in frame:
        frame = frame.assign(left_out=[v if isinstance(v, str) else ", ".join(v) for v in frame["left_out"]])
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))
    return path


def read_scores(results_root: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The `scores.csv` of every run in `frame`, under each other: one row per image and post-processing.

    Returns:
        model, category, seed and the columns of `scores.csv`, defective images of the types that are scored only; a run
        without the file is skipped.
    """
    parts = []
    for run in frame[frame["found"].astype(bool)].drop_duplicates("folder").to_dict("records"):
        path = Path(results_root) / run["folder"] / "scores.csv"
        if path.is_file():
            try:
                scores = pd.read_csv(path)
                scores = scores.astype({"name": str, "defect": str, "postprocess": str, "F1": float})
            except (ValueError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{path} is damaged ({reason}); evaluate the run again") from None
            ignored = ["good", *run["left_out"]]
            key = {name: run[name] for name in ("model", "category", "seed")}
            parts.append(scores[~scores["defect"].isin(ignored)].assign(**key))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["model", "category", "seed"])
