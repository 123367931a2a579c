"""``metrics.json``: every number of a finished run. Only this module writes and reads it.

`Record` is its schema, format 1. An edited or damaged file is refused by name. Tables are built from records alone;
figures also need ``maps.npz`` (`clgan_lib.runs.maps`).
"""

import json
import platform
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clgan_lib.metrics import Average
from clgan_lib.paths import ROOT
from clgan_lib.ranking import ORACLE, RANKING
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import Evaluation, dual_masks, measure
from clgan_lib.runs.folder import first_line, write_json

FORMAT = 1  # of metrics.json
_EVERY_TYPE = "every type"
_PACKAGES = ("torch", "torchvision", "numpy", "pandas", "safetensors")

_Share = Annotated[float, Field(ge=0, le=1)]
_Percent = Annotated[float, Field(ge=0, le=100)]
_Natural = Annotated[int, Field(ge=0)]
_Amount = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    """Unknown fields are kept, so that a file of a newer version can be rewritten without a loss."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class Scores(_Part):
    """Eq. 11 to 15, percent."""

    P: _Percent
    R: _Percent
    F1: _Percent
    IoU: _Percent
    ACC: _Percent


class FalseAlarms(_Part):
    """False positives: percent of the good test images with any marked pixel, and of their pixels."""

    images: _Percent
    pixels: _Percent


class Settings(_Part):
    """The fields of the run's config that tables and figures use; the others are kept."""

    experiment: str
    model: str
    variant: str | None = ""
    category: str
    seed: _Natural
    image_size: _Natural
    data_root: str
    k: _Amount


class Residual(_Part):
    """Mean ID1 (eq. 7, channel mean) inside and outside the defects, in [0, 1]; None where it does not exist."""

    inside: _Share | None = None
    outside: _Share | None = None


class Thresholds(_Part):
    """The calibrated threshold on anomaly maps, and the quantile of the held-out pixels that it is."""

    calibrated: float | None = None
    quantile: _Share | None = None


class Images(_Part):
    """Numbers of images."""

    train: _Natural | None = None
    holdout: _Natural | None = None
    test_good: _Natural | None = None
    test_defective: _Natural | None = None


class Time(_Part):
    """Cost of a run; all None for maps from another program."""

    train_s: _Amount | None = None
    images_seen: _Amount | None = None
    steps: _Amount | None = None
    images_per_s: _Amount | None = None
    evaluate_s: _Amount | None = None
    peak_bytes: _Amount | None = None


class Imported(_Part):
    """The source of imported score maps; `scored` of the `of` test images have one."""

    source: str
    scored: _Natural
    of: _Natural


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

    @field_validator("defects")
    @classmethod
    def _counted(cls, defects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, scores in defects.items():
            if type(count := scores.get("images")) is not int or count < 0:
                raise ValueError(f"{name!r} has {count!r} images, expected their number")
        return defects

    @property
    def row(self) -> str:
        """What tables call the run: its variant's name, or its model's."""
        return self.config.variant or self.config.model

    def run_config(self) -> RunConfig:
        """The settings, checked as those of a new run."""
        return RunConfig(**self.config.model_dump(exclude_unset=True))

    def blocks(self) -> dict[str, Block]:
        """The scores by the name of their set of test images; the run's own first."""
        return {f"without {', '.join(self.left_out)}" if self.left_out else _EVERY_TYPE: self, **self.subsets}

    def content(self) -> dict[str, Any]:
        """The content of the file; the fields that identify the run come first."""
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
    """Every number of ``metrics.json`` that comes from masks and maps, computed again from the stored maps.

    Args:
        record: of the run, for `k` and the types left out.
        evaluation: from `read_evaluation`; the paper's masks are computed again where there are reconstructions.

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


def environment(device: torch.device) -> dict[str, Any]:
    """Where a result comes from: versions, device, threads, platform and commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "opencv": cv2.__version__,  # its package has several names
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        **_commit(),
    }


def _commit() -> dict[str, Any]:
    """The commit of the code and whether tracked files differ from it; ``"unknown"`` outside a checkout."""

    def git(*arguments: str) -> str:
        """What git prints."""
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "-uno", "--", ":!results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}


def write_record(folder: Path, record: Record) -> None:
    """Write ``metrics.json`` atomically: the sign of a run's success."""
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
        version = content["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}); delete it and run again") from None
    if version != FORMAT:
        wanted = f"this version reads {FORMAT}; use the version that wrote it, or run it again"
        raise ValueError(f"{path} has format {version!r}, {wanted}")
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {_problem(error)}; evaluate the run again") from None


def _problem(error: ValidationError) -> str:
    """The first wrong field, in one line."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "missing":
        return f"it lacks {name!r}"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    value = " ".join(str(first["input"])[:40].split())
    return f"{name} is {value!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")  # Python's reader accepts NaN and Infinity, which no run writes
