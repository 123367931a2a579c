"""A training on disk: weights, optimisers, random state and history in one safetensors file; nothing is ever unpickled."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clgan_lib.model import ReconstructionModel
from clgan_lib.paths import replacing

_FORMAT = 1


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        steps: optimisation steps done.
        images: images shown to the model, all draws counted.
        seconds: of training, over all resumptions.
        history: a row per logging step: step, images, seconds, and the mean of each loss term since the row before.
    """

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: Path, model: ReconstructionModel, done: Progress, fingerprint: str) -> None:
    """Write weights, optimisers, random state and history, whole or not at all."""
    tensors = {f"weights/{name}": value for name, value in model.state_dict().items()}
    state = _flatten(model.training_state())
    notes = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    tensors |= {f"training/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    head = {"format": _FORMAT, "fingerprint": fingerprint, "progress": vars(done), "notes": notes}
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(contiguous, part, {"head": json.dumps(head)})


def load_checkpoint(path: Path, model: ReconstructionModel, fingerprint: str) -> Progress | None:
    """Restore a checkpoint of the same settings and code.

    Args:
        path: of the file.
        model: built with the same arguments; gets weights and optimisers, and torch its random state.
        fingerprint: of settings and code.

    Returns:
        How far it is; None (and nothing changed) where the file is missing, damaged, edited or of another fingerprint.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            head = json.loads((opened.metadata() or {})["head"])
            if (head["format"], head["fingerprint"]) != (_FORMAT, fingerprint):
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    weights, state = {name: value.clone() for name, value in model.state_dict().items()}, model.training_state()
    try:
        model.load_state_dict(_under("weights/", tensors))
        model.load_training_state(_unflatten(_under("training/", tensors) | head["notes"]))
        done = Progress(**head["progress"])
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])
        return done
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):  # the right fingerprint, but edited
        model.load_state_dict(weights)
        model.load_training_state(state)
        return None


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _flatten(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested state as one dict with ``/``-joined keys."""
    flat: dict[str, Any] = {}
    for name, value in state.items():
        flat |= _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested state that `_flatten` joined."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return nested
