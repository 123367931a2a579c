"""A second device on a machine that has none: tensors that say they are elsewhere, computed by the CPU.

A GPU's kernels cannot be tested without one; whether every tensor is on the right device can. What is `elsewhere` refuses
to meet what is not (but for scalars and indices, as on a GPU), so code that trains, saves, resumes and answers here and
gives the CPU's numbers does not mix devices. A script, since it changes torch for its process:

    python tests/elsewhere.py FOLDER MODEL...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from clgan_lib.interop import inspection
from clgan_lib.model import find_model
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

NAME = "elsewhere"
SMALL = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "clgan": SMALL,
    "clgan_r": SMALL,
    "clgan_rc": {**SMALL, "lambda_gan": 0.1, "gan_from": 0.0},
    "vae_ssim": {"width": 4, "latent": 8, "batch_size": 2},
    "udcae": {"width": 4, "batch_size": 2},
    "dcgan": {"width": 4, "batch_size": 2, "patches": 4},
}


class There(torch.Tensor):
    """A tensor of the other device; `inner` holds its values on the CPU."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> There:
        options = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=f"{NAME}:0", **options)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def tolist(self) -> Any:
        """What torch refuses of a subclass."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, *args, **(kwargs or {}))


def inner(value: Any) -> Any:
    """The CPU's tensor in place of one elsewhere; anything else as it is."""
    return value.inner if isinstance(value, There) else value


def compute(function: Any, *args: Any, **kwargs: Any) -> Any:
    """One operator: on the CPU's values, its result where it belongs.

    Raises:
        RuntimeError: where tensors of two devices meet.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    strangers = [tensor for tensor in tensors if not isinstance(tensor, There) and tensor.dim()]
    name = function._schema.name
    taken = "copy" in name or ("index" in name and isinstance(args[0], There))
    if there and strangers and not taken:
        raise RuntimeError(f"{name}: tensors on two devices, {NAME} and cpu")
    device = kwargs.get("device")
    goes_there = bool(there) if device is None else torch.device(device).type == NAME
    aside = {"device": torch.device("cpu")} if device is not None else {}
    found = function(*tree_map(inner, args), **tree_map(inner, {**kwargs, **aside}))
    if not goes_there:
        return found
    written = {id(tensor.inner): tensor for tensor in there} if function._schema.is_mutable else {}
    return tree_map(lambda x: written.get(id(x), There(x)) if isinstance(x, torch.Tensor) else x, found)


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """From device to device."""
    inner(target).copy_(inner(source))
    return target


class Module(_DummyBackendModule):
    """What `torch.autocast` asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """It computes as the CPU does."""
        return [torch.float32, torch.bfloat16]


def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> There:
    """Memory there."""
    return There(torch.empty_strided(size, stride, dtype=dtype))


def install() -> list[torch.library.Library]:
    """Make the device known to torch; what comes back must be kept."""
    _setup_privateuseone_for_python_backend(NAME, Module())
    # As on a GPU, parameters stay themselves when they move: optimisers hold them already
    torch.__future__.set_swap_module_params_on_conversion(True)
    everything, below = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(compute, "PrivateUse1")
    below.impl("empty_strided", empty_strided, "PrivateUse1")  # torch.tensor goes below the fallback
    below.impl("_copy_from", copy_from, "PrivateUse1")
    return [everything, below]


def run(model: str, device: str, folder: Path, *, interrupted: bool) -> Path:
    """Train and evaluate on a device, where asked with an interruption after two steps; the run's folder."""
    config = RunConfig(
        model=model, category="bottle", options=OPTIONS.get(model, {}), image_size=64 if model == "dcgan" else 32,
        embedded_train=14, embedded_test=8, budget=8.0, checkpoint_seconds=0.0, threads=1,
        device=device, results_root=str(folder / device),
    )  # fmt: skip
    cls, left = find_model(model), [2]
    step = cls.training_step

    def stopping(self: Any, images: torch.Tensor, progress: float) -> dict[str, torch.Tensor]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step(self, images, progress)

    if interrupted and cls.trainable:
        cls.training_step = stopping  # type: ignore[method-assign]
        try:
            execution.execute(config)
        except KeyboardInterrupt:
            cls.training_step = step  # type: ignore[method-assign]
        else:
            raise AssertionError("was not interrupted")
    execution.execute(config)
    return config.folder


def check(model: str, folder: Path) -> None:
    """Once on the CPU, once elsewhere with an interruption: weights, scores and what an inspector answers are the same."""
    here, there = run(model, "cpu", folder, interrupted=False), run(model, NAME, folder, interrupted=True)
    mine, theirs = (json.loads((r / "metrics.json").read_text()) for r in (here, there))
    assert (mine["env"]["device"], theirs["env"]["device"]) == ("cpu", NAME)
    assert mine["scores"] == theirs["scores"] and mine["ranking"] == theirs["ranking"]
    weights, others = (load_file(r / "weights.safetensors") for r in (here, there))
    assert weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))
    answers = [inspection.load(here, device).inspect(image, native=True) for device in ("cpu", NAME)]
    np.testing.assert_array_equal(*(answer.scores for answer in answers))


if __name__ == "__main__":
    kept = install()
    for name in sys.argv[2:]:
        print(name)
        check(name, Path(sys.argv[1]))
