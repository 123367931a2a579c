"""The settings of one run, checked before anything is computed.

They are flat, so that papermill's ``-p name value`` reaches each of them. An unknown name is refused, where papermill would
only warn and train with other settings.
"""

import difflib
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from clgan_lib.augment import SYMMETRIES, SYMMETRY
from clgan_lib.model import MODELS, find_model
from clgan_lib.paths import RESULTS, safe_name
from clgan_lib.runs.fingerprint import training_code

EMBEDDED = "embedded"
_LONGEST = 100  # bytes of a name: model, category and seed together name a log file, and a file's name has 255 at most
_LARGEST = 2**16  # of a whole number among the options: more layers, channels or patches than fit any machine
_YAML = (str, int, float, list, tuple, dict, NoneType)
_RESERVED = ("tables", "figures", "log")  # folders of an experiment beside its runs
_MODEL_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")  # a name, or package.module:Class


class RunConfig(BaseModel):
    """One model on one category with one seed; the parameters of `notebooks/10_train.ipynb`.

    Raises:
        ValueError: in one line, naming each field that is unknown or cannot be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    experiment: str = "scratch"
    """Folder of results with the runs of one table."""
    model: str = "clgan"
    """A name from `clgan_lib.model.MODELS`, such as ``clgan_rc`` or ``udcae``, or ``package.module:Class``."""
    variant: str = ""
    """Name of this run in folders and tables, where a model runs with several settings; empty for `model`."""
    category: str = "bottle"
    """Product of the data set."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the weights, the batches and the augmentation."""
    data_root: str = ""
    """Folder in the MVTec AD layout; empty for the embedded data."""
    bit_depth: int = Field(0, ge=0, le=32)
    """Of images with more than 8 bits a channel, such as 12 in a 16-bit PNG; 0 for all bits of the file."""
    embedded_train: int = Field(150, ge=2, le=100_000)
    """Good training images of the embedded data."""
    embedded_test: int = Field(60, ge=1, le=100_000)
    """Defective test images of the embedded data."""
    results_root: str = ""
    """Where results go; empty for ``results/`` in the repository."""
    image_size: int = Field(64, ge=16, le=1024)
    """Side in pixels at which the model is trained; evaluation is at 256 whatever it is."""
    budget: float = Field(400.0, ge=0, allow_inf_nan=False)
    """How much training, in `budget_unit`."""
    budget_unit: Literal["images", "epochs", "seconds"] = "images"
    """``images`` shown to the model, ``epochs`` over the good images, or ``seconds`` of training."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The model's own keyword arguments."""
    symmetry: str = "auto"
    """Of the product: none, flips, quarters, quarters+flips, any or any+flips; ``auto`` looks the category up."""
    crop: bool = False
    """Random crops of 256/286 during the first half of training, as CUT does."""
    holdout: int = Field(7, ge=2)
    """Every `holdout`-th good image is held out from training; the calibrated threshold comes from these."""
    quantile: float = Field(0.99, gt=0, lt=1)
    """Share of the held-out good pixels below the calibrated threshold."""
    k: float = Field(3.0, ge=0, allow_inf_nan=False)
    """Of the paper's first threshold, eq. 8."""
    leave_out: list[str] = Field(default_factory=list)
    """Defect types left out of the scores; tables say so."""
    device: str = "auto"
    """``auto`` (CUDA, then MPS, then CPU), or a torch device."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of training; ``auto`` is bf16 on CUDA and float32 elsewhere. A CPU without instructions for it is slow."""
    compiled: bool = False
    """torch.compile the networks for training, CLGAN's alone: pays in bf16, after a minute; needs a C++ compiler."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads of torch and OpenCV; 0 leaves the choice to them."""
    checkpoint_seconds: float = Field(60.0, ge=0, allow_inf_nan=False)
    """Time between checkpoints; 0 makes one at each logging step."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(one_line(error, list(type(self).model_fields))) from None

    @field_validator("data_root")
    @classmethod
    def _has_a_name(cls, value: str) -> str:
        """``.`` and ``..`` name no data set: tables show the folder's own name."""
        return str(Path(value).resolve()) if value and Path(value).name in ("", "..") else value

    @field_validator("category", "leave_out")
    @classmethod
    def _one_unicode_form(cls, value: Any) -> Any:
        compose = partial(unicodedata.normalize, "NFC")
        return compose(value) if isinstance(value, str) else [*map(compose, value)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        safe_name(self.experiment, "experiment")
        safe_name(self.category, "category")
        if self.experiment == "paper":
            raise ValueError("experiment: 'paper' holds the published numbers; choose another name")
        if not _MODEL_NAME.fullmatch(self.model):
            raise ValueError(
                f"model: {self.model!r} is no name; use one of {', '.join(MODELS)}, or package.module:Class"
            )
        for name in ("experiment", "category", "model", "variant"):
            size = len(getattr(self, name).encode())
            if size > _LONGEST:
                raise ValueError(f"{name}: a name of {size} bytes is too long for a folder; use {_LONGEST} at most")
        if self.variant:
            safe_name(self.variant, "variant")
            if self.variant.casefold() in (*_RESERVED, *(set(MODELS) - {self.model})):
                raise ValueError(
                    f"variant: {self.variant!r} is the name of another model or of a folder of results; choose another"
                )
        if self.symmetry not in ("auto", *SYMMETRIES):
            raise ValueError(f"symmetry: {self.symmetry!r} is unknown; use auto, {', '.join(SYMMETRIES)}")
        for name in ("data_root", "results_root"):
            if not all(c.isprintable() or unicodedata.category(c) == "Zs" for c in getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r} cannot name a folder; remove what cannot be printed")
        _check_plain(self.options, "options")
        return self

    @classmethod
    def from_notebook(cls, names: Mapping[str, Any]) -> Self:
        """The config of a notebook whose first cells define its parameters and nothing else.

        Args:
            names: the notebook's `globals()`. Every value that YAML has counts as a parameter. So a misspelt one is refused,
                which papermill would inject with a warning.

        Raises:
            ValueError: naming the unknown or impossible parameter.
        """
        own = {
            name: value for name, value in names.items() if name[0] != "_" and name not in ("In", "Out")
        }  # IPython's
        return cls(**{name: value for name, value in own.items() if isinstance(value, _YAML)})

    @property
    def resolved_symmetry(self) -> str:
        """The symmetry in force: ``auto`` looked up by category."""
        return SYMMETRY.get(self.category, "none") if self.symmetry == "auto" else self.symmetry

    @property
    def data_name(self) -> str:
        """Name of the data in tables: ``embedded``, or the data root's folder name."""
        return Path(self.data_root).name if self.data_root else EMBEDDED

    @property
    def row(self) -> str:
        """Name of the run in tables: its variant's, or its model's."""
        return self.variant or self.model

    @property
    def folder(self) -> Path:
        """``<results>/<experiment>/<model or variant>/<category>/seed<k>``; a dotted path becomes one folder name."""
        root = Path(self.results_root) if self.results_root else RESULTS
        return root / self.experiment / model_folder(self.row) / self.category / f"seed{self.seed}"

    def fingerprint(self) -> str:
        """SHA-256 of all that the trained weights depend on: settings and training code."""
        settings = self.model_dump(
            include={"model", "category", "seed", "data_root", "embedded_train", "embedded_test", "image_size", "budget",
                     "budget_unit", "options", "crop", "holdout", "precision", "compiled"}
        )  # fmt: skip
        settings["symmetry"] = self.resolved_symmetry
        settings |= {"bit_depth": self.bit_depth} if self.bit_depth else {}
        return hashlib.sha256((json.dumps(settings, sort_keys=True) + training_code(self.model)).encode()).hexdigest()


def model_folder(model: str) -> str:
    """A model's name as a folder: ``my_package.my_module:Mine`` becomes ``my_package.my_module.Mine``."""
    return model.replace(":", ".")


def _check_plain(value: Any, name: str) -> None:
    """Refuse an option, by name, that ``metrics.json`` cannot hold."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{name}: {key!r} is no option's name; use text")
            _check_plain(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for part in value:
            _check_plain(part, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{name}: expected a whole number up to {_LARGEST}, got {value}")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{name}: expected a number, text, a list or nothing, got {type(value).__name__}")


def check_options(model: str, options: dict[str, Any]) -> None:
    """Check a model's options against the annotations of its constructor.

    Raises:
        ValueError: naming an option of another type, or a negative one of a model of this suite.
    """
    constructor = find_model(model).__init__
    try:
        annotations = get_type_hints(constructor)
    except NameError:  # a reader's own model with annotations that do not resolve
        annotations = {}
    for name, value in options.items():
        try:
            TypeAdapter(annotations.get(name, Any)).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ValueError(f"options.{name}: {message[0].lower()}{message[1:]}, got {value!r}") from None
        except PydanticUserError:  # annotated with a type that pydantic cannot check
            continue
        if model in MODELS and isinstance(value, int | float) and value < 0:
            raise ValueError(f"options.{name}: expected a number >= 0, got {value}")


def one_line(error: ValidationError, known: list[str]) -> str:
    """Pydantic's errors in one line, each with its field; a misspelt one with the nearest that exists."""
    parts = []
    for item in error.errors():
        field = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            parts.append(f"{field!r} is not a parameter; {hint}")
        elif item["type"] == "bool_type":  # papermill -p field true is a text
            parts.append(f"{field}: expected True or False, got {item['input']!r}")
        elif item["type"] == "string_type" and isinstance(item["input"], int | float):  # papermill -p category 01
            parts.append(f"{field}: {item['input']} is a number; give it as text, papermill -r {field} instead of -p")
        elif field:
            parts.append(f"{field}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)
