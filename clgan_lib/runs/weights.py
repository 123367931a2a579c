"""A trained model in one file, with the settings and thresholds that another machine needs.

It is a safetensors file. Its header holds one JSON text, the *card*. A model's own calibration is in buffers, and so among
the tensors. Nothing is unpickled.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from clgan_lib.model import ReconstructionModel, build_model
from clgan_lib.paths import replacing
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.folder import REDO, first_line

FORMAT = 1  # of the card
KEY = "clgan"  # of the card in the header; one key, since safetensors orders several as it likes
_PLACES = {"data_root", "results_root"}  # settings of this machine alone


@dataclass(frozen=True)
class Card:
    """What the file holds beside the weights.

    Attributes:
        config: of the run.
        threshold: the calibrated one, on anomaly maps at 256x256.
        maxima: the maximum of each held-out good image's map; thresholds for whole images come from these.
        commit: of the code that trained the model.
    """

    config: RunConfig
    threshold: float
    maxima: tuple[float, ...]
    commit: str

    def __post_init__(self) -> None:
        if not (np.isfinite([self.threshold, *self.maxima]).all() and self.maxima):
            raise ValueError("threshold and maxima: expected finite numbers, one maximum at least")

    def text(self) -> str:
        """As JSON, without places of this machine."""
        settings = self.config.model_dump(exclude=_PLACES)
        return json.dumps({"format": FORMAT, **vars(self), "config": settings}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> "Card":
        """From what `text` returned.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: if it is damaged or of another version.
        """
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version reads {FORMAT}")
        config = RunConfig(**content["config"])
        return cls(config, float(content["threshold"]), tuple(map(float, content["maxima"])), str(content["commit"]))


def write_weights(path: Path, model: ReconstructionModel, card: Card) -> None:
    """Write weights and card atomically; equal runs make equal files."""
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as part:
        save_file(tensors, part, {KEY: card.text()})


def read_card(path: Path) -> Card | None:
    """The card of a weights file; None for a file of an older version, without a card.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file that is damaged or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: copy it here, or {REDO}")
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
        return None if text is None else Card.from_text(text)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or of another version ({first_line(error)}); copy it again") from None


def read_model(path: Path, config: RunConfig) -> ReconstructionModel:
    """The trained model, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file that is damaged or of another model.
    """
    model = build_model(config.model, image_size=config.image_size, options=config.options)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: copy it here, or {REDO}")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or of another model ({first_line(error)}); {REDO}") from None
    return model.eval()
