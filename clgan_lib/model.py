"""The contract that every method keeps: ours, a rival's, a control's, or a reader's own.

A method reconstructs an image as it would look without a defect. Everything else (devices, seeds, checkpoints, detection,
metrics, tables) belongs to the suite, so that methods differ in nothing but themselves.
"""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MODELS = {
    "clgan": "clgan_lib.clgan:CLGAN",
    "clgan_r": "clgan_lib.restoring.model:RestoringModel",
    "clgan_rc": "clgan_lib.restoring.model:RestoringModelWithComparator",
    "vae_ssim": "baselines.vae_ssim:VAESSIM",
    "udcae": "baselines.udcae:UDCAE",
    "dcgan": "baselines.dcgan:DCGAN",
    "blur": "baselines.blur:Blur",
    "template": "baselines.template:Template",
}


class ReconstructionModel(nn.Module):
    """A method that reconstructs the defect-free version of an image.

    Images are float tensors ``(B, 3, S, S)`` in [-1, 1], RGB, where ``S`` is `image_size`.

    Subclasses take their own options as keyword arguments with sensible defaults, own their optimisers and schedules,
    and implement `training_step` and `reconstruct`.

    Args:
        image_size: S, in pixels.
        batch_size: B, the images of one draw of one step.

    Attributes:
        draws: how many independent batches a step takes; `training_step` gets ``(draws * B, 3, S, S)``.
        trainable: False for a control that only looks at the training images (`fit`) and takes no step.
        optimizers: by name; a checkpoint keeps their moments.
    """

    draws: int = 1
    trainable: bool = True

    def __init__(self, *, image_size: int, batch_size: int = 1) -> None:
        super().__init__()
        for name, value in {"image_size": image_size, "batch_size": batch_size}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive whole number, got {value!r}")
        self.image_size = image_size
        self.batch_size = batch_size
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    @property
    def device(self) -> torch.device:
        """Where the model's tensors are; new tensors go there too."""
        return next((t.device for t in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def fit(self, images: Tensor, symmetry: str) -> None:
        """Look at all training images once, before the first step.

        Args:
            images: ``(N, 3, S, S)``, uint8, on any device.
            symmetry: of the product, one of `clgan_lib.augment.SYMMETRIES`.
        """

    def compile_networks(self) -> None:
        """Let torch.compile fuse what a training step runs through, where a model knows how: same results to rounding."""

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        """One optimisation step.

        Args:
            images: ``(draws * B, 3, S, S)`` in [-1, 1]; the first B are the paper's X.
            progress: the share of the training budget spent so far, in [0, 1]; all that schedules and stages need.

        Returns:
            Every loss term, a detached scalar each, under the paper's name.
        """
        raise NotImplementedError

    def reconstruct(self, images: Tensor) -> Tensor:
        """The images without their defects: ``(B, 3, S, S)`` in [-1, 1], in evaluation mode, without gradients."""
        raise NotImplementedError

    @torch.no_grad()
    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        """The anomaly score of each pixel: what AUROC, AP and the calibrated threshold are taken from.

        By default the channel mean of ID1 (eq. 7): ``|blur(I) - blur(Ir)|``, blurred again, with a 5x5 Gaussian.

        Args:
            images: ``(B, 3, S, S)`` in [-1, 1].
            reconstructions: what `reconstruct` returned for them; computed where it is not given.

        Returns:
            ``(B, S, S)``, >= 0; the default lies in [0, 1].
        """
        if reconstructions is None:
            reconstructions = self.reconstruct(images)
        difference = (blur5(images) - blur5(reconstructions)).abs() / 2  # from [-1, 1] to the [0, 1] of detection
        return blur5(difference).mean(1)

    def calibrate(self, images: Tensor) -> None:
        """Learn whatever a native detector needs from held-out good images; keep it in buffers.

        Args:
            images: ``(H, 3, S, S)`` in [-1, 1], H >= 1, never seen in training.
        """

    def detect_native(self, images: Tensor) -> Tensor:
        """The mask by the method's own paper's detector, bool ``(B, S, S)``, where it has one."""
        raise NotImplementedError

    @property
    def has_native(self) -> bool:
        """Whether the method brings a detector of its own."""
        return type(self).detect_native is not ReconstructionModel.detect_native

    def map_threshold(self) -> float | None:
        """A threshold on `anomaly_map` of the method's own, once calibrated; None where it has none.

        An inspection cuts its masks there, and else at the calibrated threshold.
        """
        return None

    def scale_learning_rates(self, share: float) -> None:
        """Set the rate of every optimiser to this share of the one that it was made with."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * share

    def minimise(self, loss: Tensor, optimizer: str) -> None:
        """One step of one of the `optimizers` on a scalar loss."""
        self.optimizers[optimizer].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[optimizer].step()

    def training_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights, as nested dicts of tensors and plain numbers.

        By default each optimiser's moments, ``"<parameter>.<moment>"``; rates follow from the schedule.
        """
        state = {name: optimizer.state_dict()["state"] for name, optimizer in self.optimizers.items()}
        return {
            name: {f"{i}.{moment}": torch.as_tensor(v) for i, slots in moments.items() for moment, v in slots.items()}
            for name, moments in state.items()
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned, into a model built with the same arguments.

        A checkpoint holds nothing of an optimiser that has not stepped. A file keeps the order of contiguous tensors, and a
        fused optimiser goes through weights and moments side by side: each moment gets its parameter's order of memory.
        """
        for name, optimizer in self.optimizers.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in state.get(name, {}).items():
                number, _, moment = key.partition(".")
                like = parameters[int(number)]
                ordered = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
                moments.setdefault(int(number), {})[moment] = ordered.detach()
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, the same updates, without its decorators for torch.compile.

    At an optimiser's first step these import the compiler, 1.5 s of every process. No optimiser is compiled here.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)


class AdamW(Adam, torch.optim.AdamW):
    """`torch.optim.AdamW`, the same updates; its arguments."""


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, beta1: float = 0.5) -> Adam:
    """Adam with betas (`beta1`, 0.999), as CUT sets it; ``fused`` updates all tensors in one pass over memory."""
    return Adam(parameters, lr=learning_rate, betas=(beta1, 0.999), fused=True)


def constant_then_linear(progress: float) -> float:
    """CUT's schedule: the share of a learning rate at `progress` in [0, 1]; 1 for half of the training, then down to 0."""
    return min(1.0, 2 * (1 - progress))


def blur5(images: Tensor) -> Tensor:
    """The 5x5 Gaussian of eq. 7, ``(B, C, H, W)``: OpenCV's for that size, [1, 4, 6, 4, 1] / 16, with reflecting borders."""
    return separable_blur(images, torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16)


def separable_blur(images: Tensor, row: Tensor) -> Tensor:
    """``(B, C, H, W)`` as float32, filtered by a `row` of odd length along both axes, with reflecting borders."""
    channels, half = images.shape[1], len(row) // 2
    padded = F.pad(images.float(), (half,) * 4, mode="reflect")
    down = F.conv2d(padded, row.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(down, row.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def calibrated(value: Tensor) -> Tensor:
    """The buffer, once it is set.

    Raises:
        RuntimeError: while it is still NaN.
    """
    if bool(value.isnan().any()):
        raise RuntimeError("the native detector is not calibrated yet; call calibrate(held-out good images) first")
    return value


def find_model(name: str) -> type[ReconstructionModel]:
    """The class of a method.

    Args:
        name: one of `MODELS`, or a dotted path ``package.module:Class`` to a reader's own.

    Raises:
        ValueError: if there is no such name, module or class, or the class does not keep the contract.
    """
    path = MODELS.get(name, name)
    module_name, separator, class_name = path.partition(":")
    known = f"use one of {', '.join(MODELS)}, or a path like my_package.my_module:MyModel"
    if not separator:
        raise ValueError(f"model: {name!r} is unknown; {known}")
    try:
        method = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model: {name!r} cannot be imported ({error}); {known}") from error
    if not (isinstance(method, type) and issubclass(method, ReconstructionModel)):
        raise ValueError(f"model: {name!r} is not a subclass of clgan_lib.model.ReconstructionModel")
    return method


def build_model(name: str, *, image_size: int, options: dict[str, Any]) -> ReconstructionModel:
    """A fresh model by name.

    Args:
        name: see `find_model`.
        image_size: S, in pixels.
        options: the model's own keyword arguments; an unknown one is refused by name.

    Raises:
        ValueError: from `find_model`, or naming the model and the option it does not take.
    """
    method = find_model(name)
    try:
        return method(image_size=image_size, **options)
    except TypeError as error:
        raise ValueError(f"options of model {name!r}: {error}") from error
