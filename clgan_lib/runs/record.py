"""What a finished run leaves: ``metrics.json`` (every number) and ``maps.npz`` (reconstructions, scores, masks).

Both are written and read here and nowhere else. `Record` is the schema of ``metrics.json``, format 1; an edited or
damaged file is refused by name. Tables are built from records alone, figures also need the maps.
"""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clgan_lib.metrics import Average
from clgan_lib.paths import replacing
from clgan_lib.ranking import ORACLE, RANKING
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import Evaluation, dual_masks, measure
from clgan_lib.runs.folder import REDO, first_line, write_json

FORMAT = 1  # of metrics.json
EVERY_TYPE = "every type"

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Natural = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]

# What a file that is cut short, edited or of another kind provokes in zipfile and NumPy; a huge shape is a MemoryError.
BROKEN = (OSError, EOFError, KeyError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError, RuntimeError,
          zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)  # fmt: skip


class _Part(BaseModel):
    """Fields that are not named here are kept: a file of a newer version is rewritten without a loss."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class Scores(_Part):
    """Eq. 11 to 15, percent."""

    P: Percent
    R: Percent
    F1: Percent
    IoU: Percent
    ACC: Percent


class FalseAlarms(_Part):
    """Percent of the good test images with any marked pixel, and of their pixels."""

    images: Percent
    pixels: Percent


class Settings(_Part):
    """The fields of the run's config that tables and figures use; the others are kept as they are."""

    experiment: str
    model: str
    variant: str | None = ""
    category: str
    seed: Natural
    image_size: Natural
    data_root: str
    k: Amount


class Residual(_Part):
    """Mean ID1 (eq. 7, channel mean) inside and outside the defects, in [0, 1]; None where it does not exist."""

    inside: Share | None = None
    outside: Share | None = None


class Thresholds(_Part):
    """The calibrated threshold on anomaly maps, and the quantile of the held-out pixels that it is."""

    calibrated: float | None = None
    quantile: Share | None = None


class Images(_Part):
    """Numbers of images."""

    train: Natural | None = None
    holdout: Natural | None = None
    test_good: Natural | None = None
    test_defective: Natural | None = None


class Time(_Part):
    """Cost of a run; all None for maps from another program."""

    train_s: Amount | None = None
    images_seen: Amount | None = None
    steps: Amount | None = None
    images_per_s: Amount | None = None
    evaluate_s: Amount | None = None
    peak_bytes: Amount | None = None


class Imported(_Part):
    """Where score maps of another program come from: `scored` of the `of` test images have one."""

    source: str
    scored: Natural
    of: Natural


class Block(_Part):
    """The scores on one set of test images: ``scores[postprocess][average]`` and the measures without a threshold."""

    scores: dict[str, dict[Average, Scores]]
    ranking: dict[str, float | None]

    @field_validator("ranking")
    @classmethod
    def _in_range(cls, ranking: dict[str, float | None]) -> dict[str, float | None]:
        for name in ("AUROC", "AP"):  # older versions lack the other measures
            if ranking.get(name) is None:
                raise ValueError(f"it lacks {name!r}")
        for name in RANKING:
            value, most = ranking.get(name), 100 if name in ORACLE else 1
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"{name} is {str(value)!r}, expected a number from 0 to {most}")
        return ranking


class Record(Block):
    """The content of ``metrics.json``: settings, environment, and every number of one run.

    Attributes:
        left_out: defect types that the scores leave out.
        subsets: the scores on other sets of test images, by name.
        defects: per defect type the number of images and their scores.
    """

    format: Literal[1] = 1
    config: Settings
    env: dict[str, Any]
    fingerprint: str = "unknown"
    imported: Imported | None = None
    false_alarms: dict[str, FalseAlarms] = {}
    residual: Residual
    left_out: list[str] = []
    subsets: dict[str, Block] = {}
    defects: dict[str, dict[str, Any]] = {}
    thresholds: Thresholds
    images: Images
    time: Time

    @property
    def row(self) -> str:
        """What tables call the run: its variant's name, or its model's."""
        return self.config.variant or self.config.model

    def run_config(self) -> RunConfig:
        """The settings, checked as those of a new run."""
        return RunConfig(**self.config.model_dump(exclude_unset=True))

    def blocks(self) -> dict[str, Block]:
        """The scores by the name of their set of test images; the run's own first."""
        return {f"without {', '.join(self.left_out)}" if self.left_out else EVERY_TYPE: self, **self.subsets}

    def content(self) -> dict[str, Any]:
        """As it is written: what identifies the run first."""
        fields = self.model_dump(exclude_unset=True)
        first = ("format", "config", "env", "fingerprint", "imported")
        return {**{name: fields[name] for name in first if name in fields}, **fields}


def make_record(config: RunConfig, evaluation: Evaluation, *, train_images: int | None, **fields: Any) -> Record:
    """The record of an evaluated run.

    Args:
        config: its settings.
        evaluation: its predictions.
        train_images: the number of images it was trained on; None for maps of another program.
        fields: env, time, and fingerprint or imported.
    """
    good = evaluation.defects.count("good")
    images = {"train": train_images, "holdout": len(evaluation.holdout)}
    images |= {"test_good": good, "test_defective": len(evaluation.defects) - good}
    thresholds = {"calibrated": evaluation.threshold, "quantile": config.quantile}
    own: dict[str, Any] = {"format": FORMAT, "config": config.model_dump(), "thresholds": thresholds, "images": images}
    return Record(**own, **fields, **measure(evaluation, config.leave_out))


def measure_again(record: Record, evaluation: Evaluation) -> dict[str, Any]:
    """What a finished run's stored maps give for its ``metrics.json``.

    Args:
        record: of the run, for `k` and the types left out.
        evaluation: from `read_evaluation`; the paper's masks are made again where there are reconstructions.

    Returns:
        As `clgan_lib.runs.evaluation.measure`; without reconstructions also without ``residual``.
    """
    if len(evaluation.reconstructions):
        dual = dual_masks(evaluation.images, evaluation.reconstructions, record.config.k)
        evaluation = replace(evaluation, masks={"dual_threshold": dual, **evaluation.masks})
    measures = measure(evaluation, record.left_out)
    if not len(evaluation.reconstructions):
        del measures["residual"]
    return measures


def write_record(folder: Path, record: Record) -> None:
    """Write ``metrics.json``, whole or not at all: the sign of a run's success."""
    write_json(folder / "metrics.json", record.content())


def read_record(folder: str | Path) -> Record:
    """``metrics.json`` of a finished run.

    Raises:
        FileNotFoundError: if there is none: the run is missing or did not finish.
        ValueError: naming the file and the field, if it is damaged, edited or of another format.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: this run is missing or did not finish; run it (again)")
    try:
        content = json.loads(path.read_text(encoding="utf8"), parse_constant=_no_number)
        found_format = content["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}); delete it and run again") from None
    if found_format != FORMAT:
        wanted = f"this version reads {FORMAT}; use the version that wrote it, or run it again"
        raise ValueError(f"{path} has format {found_format!r}, {wanted}")
    try:
        return Record(**content)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{path}: {_problem(error)}; evaluate the run again") from None


def _problem(error: ValidationError | TypeError) -> str:
    """The first field that is wrong, in one line."""
    if isinstance(error, TypeError):
        return first_line(error)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "missing":
        return f"it lacks {name!r}"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    value = " ".join(str(first["input"])[:40].split())
    return f"{name} is {value!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")  # Python's reader takes NaN and Infinity, which no run writes


def write_maps(folder: Path, evaluation: Evaluation) -> None:
    """Write ``maps.npz``: all that figures need, and what the scores are measured again from."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(evaluation, name) for name in ("images", "scores", "holdout")}
    arrays |= {"masks": evaluation.truths, "names": np.array(evaluation.names)}
    arrays["defects"] = np.array(evaluation.defects)
    if len(evaluation.reconstructions):
        arrays["reconstructions"] = evaluation.reconstructions
    else:  # the paper's masks cannot be computed again
        arrays["dual_threshold"] = evaluation.masks["dual_threshold"]
    arrays |= {} if evaluation.image_scores is None else {"image_scores": evaluation.image_scores}
    arrays |= {"native": evaluation.masks["native"]} if "native" in evaluation.masks else {}
    with replacing(folder / "maps.npz") as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_maps(folder: str | Path, names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Arrays of a run's ``maps.npz``, as `write_maps` wrote them.

    Args:
        folder: the run's.
        names: the arrays wanted; reading few is faster. None given means all.

    Raises:
        FileNotFoundError: if the run kept no maps.
        ValueError: if the file is damaged or lacks an array.
    """
    path = Path(folder) / "maps.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: figures need the maps; copy them here, or {REDO}")
    try:
        with zipfile.ZipFile(path):  # np.load would take any file, a pickle too, and refuse it less clearly
            pass
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names or file.files}
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or incomplete ({reason}); {REDO}") from error
    counts = {name: len(array) for name, array in arrays.items() if name != "holdout" and array.ndim}
    if len(counts) < len(arrays.keys() - {"holdout"}) or len(set(counts.values())) > 1:
        raise ValueError(f"{path} is damaged: its arrays hold different numbers of images ({counts}); {REDO}")
    return arrays


def map_names(folder: str | Path) -> list[str]:
    """Names of the arrays in a run's ``maps.npz``: ``reconstructions`` and ``native`` are not in each."""
    try:
        with np.load(Path(folder) / "maps.npz", allow_pickle=False) as file:
            return list(file.files)
    except BROKEN as error:
        raise ValueError(f"{folder}/maps.npz is damaged ({error}); {REDO}") from error


def read_evaluation(folder: Path) -> Evaluation:
    """A finished run's predictions, as `clgan_lib.runs.evaluation.evaluate` gave them.

    The paper's mask is left to `detect`, and is among the masks only where there is no reconstruction to detect on.

    Raises:
        FileNotFoundError: if the run is not finished or kept no maps.
        ValueError: if its files are damaged.
    """
    threshold, maps = read_record(folder).thresholds.calibrated, read_maps(folder)
    masks: dict[str, NDArray[np.bool_]] = {name: maps[name] for name in ("dual_threshold", "native") if name in maps}
    if threshold is not None:
        masks["calibrated"] = maps["scores"] > threshold
    return Evaluation(
        images=maps["images"],
        reconstructions=maps.get("reconstructions", maps["images"][:0]),
        scores=maps["scores"],
        truths=maps["masks"].astype(bool),
        masks=masks,
        holdout=maps.get("holdout", np.zeros((0, *maps["scores"].shape[1:]), np.float32)),
        threshold=threshold,
        names=tuple(map(str, maps["names"])),
        defects=tuple(map(str, maps["defects"])),
        image_scores=maps.get("image_scores"),
    )
