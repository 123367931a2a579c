"""From the `metrics.json` of every run to one tidy table: a row per run and protocol, a hole per missing run.

Nothing else is read: maps and weights may be on another machine. `clgan_lib.exhibits.tables` lays the rows out as the
paper does.
"""

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
    "udcae": "UDCAE", "dcgan": "DCGAN", "vae_ssim": "VAE-SSIM", "clgan": "CLGAN", "clgan_r": "CLGAN-R",
    "clgan_rc": "CLGAN-RC", "blur": "blur", "template": "template",
}  # fmt: skip
CONTROLS = ("blur", "template")  # methods without learning
_MVTEC = {"mvtec", "mvtecad", "mvtecanomalydetection"}  # a data root of MVTec AD, its name without punctuation
FALSE_POSITIVES = ("false_images", "false_pixels")  # percent of the good test images, and of their pixels
_COSTS = ("train_s", "images_seen", "steps", "images_per_s", "evaluate_s", "peak_bytes")
_COUNTS = ("images_seen", "steps", "peak_bytes")  # of these, whole numbers
_ENVIRONMENT = ("device", "device_name", "python", "torch", "torchvision", "numpy", "opencv", "commit", "dirty")
_KEYS = ("experiment", "data", "model", "category", "seed", "postprocess", "average", "subset", "scored", "finished")
_SETTINGS = ("inside", "outside", "image_size", "left_out")
_COLUMNS = (
    *_KEYS, *METRICS, *RANKING, *FALSE_POSITIVES, *_SETTINGS, *_COSTS, *_ENVIRONMENT, "fingerprint", "folder", "imported",
)  # fmt: skip

_SCORES = ["name", "defect", "postprocess", "F1", "model", "category", "seed"]  # of `read_scores`, among others
_Runs = Sequence[tuple[str, str, int]]


def display(model: str) -> str:
    """How a model is called in print: the paper's name, or for a reader's own ``package.module:Class`` its class."""
    return MODEL_NAMES.get(model, model.rpartition(":")[2])


def expected_runs(experiment: str) -> list[tuple[str, str, int]]:
    """The (model or variant, category, seed) that ``config/<experiment>.yaml`` asks for; none without such a file."""
    if not (ROOT / "config" / f"{safe_name(experiment, 'experiment')}.yaml").is_file():
        return []
    return [(run.row, run.category, run.seed) for run in Experiment.load(experiment).runs()]


def collect(results_root: str | Path, experiment: str, expected: _Runs = ()) -> pd.DataFrame:
    """One tidy row per run, subset, post-processing and averaging; one row per missing run.

    Args:
        results_root: the folder that holds experiments.
        experiment: the one to read.
        expected: (model, category, seed) of the runs that should be there. A model beyond these should have every
            category and seed, too. Without the list, what is missing is told from what is there.

    Returns:
        `_COLUMNS`, then gain (F1 over the template's, points), k, threshold, quantile. Scores in percent; scored is False
        for a subset beside the run's own; false_images and false_pixels are percent of the good test images, and of
        their pixels. A run of an older version has holes where it lacks a measure. Models are in the paper's order,
        controls last. ``attrs["notes"]`` lists each file that was not used, and why; each is a warning too.

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
    finished = {(row["model"], row["category"], row["seed"]) for row in rows}
    known = expected or finished
    categories, seeds = sorted({category for _, category, _ in known}), sorted({seed for *_, seed in known})
    extra = sorted({model for model, _, _ in finished} - {model for model, _, _ in expected})
    wanted = [*expected, *itertools.product(extra, categories, seeds)]
    blank = {"experiment": experiment, "finished": False, "scored": True, "left_out": (), "imported": ""}
    rows += [blank | {"model": m, "category": c, "seed": s} for m, c, s in wanted if (m, c, s) not in finished]
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
    record = read_record(folder)
    config, place = record.config, folder.parts[-4:]
    if place != (config.experiment, model_folder(record.row), config.category, f"seed{config.seed}"):
        owner = f"{config.experiment}, {record.row}, {config.category}, seed {config.seed}"
        raise ValueError(f"it belongs to {owner}; move it back")
    base = _run(record) | {"folder": "/".join(place)}
    return [base | scores for scores in _scores(record)]


def _run(record: Record) -> dict[str, Any]:
    """What all rows of one run share."""
    config, imported, left_out = record.config, record.imported, tuple(record.left_out)
    return {
        **{name: getattr(config, name) for name in ("experiment", "category", "seed", "image_size", "k")},
        "model": record.row,
        "data": Path(config.data_root).name or EMBEDDED,
        "left_out": left_out,
        "threshold": record.thresholds.calibrated,
        "quantile": record.thresholds.quantile,
        "finished": True,
        "inside": record.residual.inside,
        "outside": record.residual.outside,
        **{f"{name}_images": count for name, count in record.images},
        "scored_images": sum(of["images"] for name, of in record.defects.items() if name not in left_out) or None,
        **{name: getattr(record.time, name) for name in _COSTS},
        **{name: int(value) for name in _COUNTS if (value := getattr(record.time, name)) is not None},
        **{name: record.env.get(name) for name in _ENVIRONMENT},
        "fingerprint": record.fingerprint,
        "imported": f"{imported.source}; {imported.scored} of {imported.of} test images" if imported else "",
    }


def _scores(record: Record) -> Iterator[dict[str, Any]]:
    """A row per subset, post-processing and averaging of one run."""
    for subset, block in record.blocks().items():
        for postprocess, averages in block.scores.items():
            wrong = record.false_alarms.get(postprocess)  # absent in runs of older versions
            marked = {} if wrong is None else {"false_images": wrong.images, "false_pixels": wrong.pixels}
            for average, scores in averages.items():
                key = {"subset": subset, "scored": block is record, "postprocess": postprocess, "average": average}
                ranking = {name: block.ranking.get(name) for name in RANKING}
                yield key | marked | ranking | {name: getattr(scores, name) for name in METRICS}


def _in_order(frame: pd.DataFrame, wanted: _Runs) -> pd.DataFrame:
    """Models as in the paper, then a reader's own, then controls; categories and seeds by name."""
    frame = frame.reindex(columns=[*_COLUMNS, *(name for name in frame.columns if name not in _COLUMNS)])
    models = dict.fromkeys([*MODEL_NAMES, *(model for model, _, _ in wanted)])
    order = [*(model for model in models if model not in CONTROLS), *CONTROLS]
    frame = frame.assign(place=frame["model"].map(order.index))
    return frame.sort_values(["place", "category", "seed"], kind="stable", ignore_index=True).drop(columns="place")


def with_gain(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `gain`: F1 minus the template's, same category, protocol and seed (its mean where it has not that seed)."""
    key = ["category", "postprocess", "average", "subset"]
    floor = frame.loc[(frame["model"] == "template") & frame["finished"], [*key, "seed", "F1"]]
    same = frame.merge(floor, on=[*key, "seed"], how="left", suffixes=("", "_floor"))["F1_floor"]
    mean = frame.merge(floor.groupby(key)["F1"].mean().reset_index(), on=key, how="left", suffixes=("", "_floor"))
    frame["gain"] = frame["F1"].astype(float) - same.fillna(mean["F1_floor"]).astype(float)
    return frame


def select(
    frame: pd.DataFrame, postprocess: str = "dual_threshold", average: str = "image", subset: str | None = None
) -> pd.DataFrame:
    """The rows of one protocol: at most one per model, category and seed, a hole where there is none.

    `postprocess` is ``"dual_threshold"``, ``"calibrated"`` or ``"native"``; `average` is ``"image"``, ``"pooled"`` or
    ``"all"``; `subset` is ``"every type"``, or None for what each run's settings score.
    """
    runs = frame[["experiment", "model", "category", "seed", "finished"]].drop_duplicates()
    rows = frame[(frame["postprocess"] == postprocess) & (frame["average"] == average)]
    rows = rows[rows["scored"].astype(bool)] if subset is None else rows[rows["subset"] == subset]
    rest = rows.drop(columns=["experiment", "finished"])
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
    return "".join(filter(str.isalpha, str(data).lower())) in _MVTEC and not _is_mvtec_2(data)


def _is_mvtec_2(data: str) -> bool:
    return "".join(filter(str.isalnum, str(data).lower())) in {name + "2" for name in _MVTEC}


def credit(data: Iterable[str]) -> str:
    """How a figure names its images: the data roots, and what the owners of the images ask for."""
    names = list(dict.fromkeys(data))
    papers = {False: "MVTec AD, Bergmann et al., CVPR 2019", True: "MVTec AD 2, Heckler-Kram et al., arXiv:2503.21622"}
    theirs = {papers[_is_mvtec_2(name)] for name in names if "mvtec" in name.lower()}
    owner = f" ({'; '.join(sorted(theirs))}; MVTec Software GmbH, CC BY-NC-SA 4.0; at 256 x 256)" if theirs else ""
    tile = " (Huang, Qiu, Yuan, The Visual Computer 36, 2020)" if "magnetic_tile" in names else ""
    return f"Data: {', '.join(names)}{owner}{tile}."


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


def read_csv(path: Path) -> pd.DataFrame:
    """A table from `write_csv`: numbers where a column holds nothing else, NaN for a missing one; empty text stays text.

    Raises:
        ValueError: if it is no table.
    """
    frame = pd.read_csv(path, keep_default_na=False)
    for name in frame.select_dtypes(exclude="number"):
        values = pd.to_numeric(frame[name], errors="coerce")
        if values.notna().any() and (values.notna() == (frame[name] != "")).all():
            frame[name] = values
    return frame


def read_scores(results_root: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The `scores.csv` of every run that has one: model, category and seed, a row per image and post-processing.

    Only defective images of the types that are scored.

    Raises:
        ValueError: if a file is damaged.
    """
    parts = [pd.DataFrame(columns=_SCORES)]  # of no run
    for run in frame[frame["finished"].astype(bool)].drop_duplicates("folder").to_dict("records"):
        path = Path(results_root) / run["folder"] / "scores.csv"
        if path.is_file():
            try:
                scores = pd.read_csv(path).astype({"name": str, "defect": str, "postprocess": str, "F1": float})
            except (ValueError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{path} is damaged ({reason}); evaluate the run again") from None
            scored = ~scores["defect"].isin(["good", *run["left_out"]])
            parts.append(scores[scored].assign(**{name: run[name] for name in ("model", "category", "seed")}))
    return pd.concat(parts[1:] or parts, ignore_index=True)
