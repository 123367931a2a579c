"""Tables 1 and 2 and the generator's layers, read from the modules themselves; no size is typed here.

A copy of a network runs on torch's "meta" device, which computes shapes without numbers. Hooks record the output of every
layer. So a table costs nothing at any image size, and follows every change in the networks.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
import torch
from torch import Tensor, nn

from clgan_lib.clgan import CLGAN
from clgan_lib.layers import BlurDown, BlurUp, ImageTanh
from clgan_lib.networks import Generator, PatchDiscriminator, ResidualBlock

# What the paper prints: Table 1's outputs, the last of them in its text only ("5 convolution layers, 30 x 30 x 1").
_PAPER_TABLE_1 = ("256×256×64", "127×127×128", "63×63×256", "31×31×512", "30×30×1")
_PAPER_TABLE_2 = "FC+ReLU, 3×3, 256"  # each of the four rows

_NAMES: dict[type[nn.Module], str] = {
    nn.Conv2d: "Conv",
    nn.Linear: "FC",
    nn.BatchNorm2d: "BN",
    nn.InstanceNorm2d: "IN",
    nn.ReLU: "ReLU",
    nn.LeakyReLU: "LeakyReLU",
    ImageTanh: "Tanh",
    nn.ReflectionPad2d: "pad",
    BlurDown: "blur↓2",
    BlurUp: "blur↑2",
    ResidualBlock: "Residual",
}
_STARTS = (nn.Conv2d, nn.Linear, ResidualBlock)  # each begins a row of a table
_PREFIXES = (nn.ReflectionPad2d, BlurUp)  # part of the convolution after them


@dataclass(frozen=True)
class Stage:
    """One convolution, fully connected layer or residual block, with all that follows it."""

    kind: str  # its layers, such as "Conv+BN+LeakyReLU+blur↓2"
    kernel: int  # side of the convolution's kernel; 0 where there is none
    inner: tuple[int, ...]  # (C, H, W) right after the convolution, as Table 1 prints it; (C,) if fully connected
    output: tuple[int, ...]  # after the whole stage, likewise
    parameters: int
    taps: tuple[int, ...]  # numbers, 1 to 5, of the PatchNCE taps at `inner`; mostly none


def stages(module: nn.Module, *shape: int) -> list[Stage]:
    """List the stages of a network in order, for an input of `shape`, the batch included."""
    ghost = copy.deepcopy(module).to("meta").eval()
    events: list[tuple[nn.Module, Tensor]] = []
    inside = {layer for block in ghost.modules() if isinstance(block, ResidualBlock) for layer in block.body.modules()}
    for unit in set(ghost.modules()) - inside:
        if isinstance(unit, tuple(_NAMES)):
            unit.register_forward_hook(lambda layer, inputs, output: events.append((layer, output)))
    image = torch.empty(shape, device="meta")
    taps: list[Tensor] = []
    if isinstance(ghost, Generator):
        features, taps = ghost.encode_until(image, len(ghost.blocks))
        ghost.decoder(features)
    else:
        ghost(image)
    groups: list[list[tuple[nn.Module, Tensor]]] = [[]]
    begun = False  # by a prefix; one that is tapped stands alone
    for layer, output in events:
        if isinstance(layer, _PREFIXES) or (isinstance(layer, _STARTS) and not begun):
            groups.append([])
        groups[-1].append((layer, output))
        begun = isinstance(layer, _PREFIXES) and not any(output is tap for tap in taps)
    return [_stage(group, taps) for group in groups if group]


def _stage(group: list[tuple[nn.Module, Tensor]], taps: list[Tensor]) -> Stage:
    inner = next((output for layer, output in group if isinstance(layer, _STARTS)), group[-1][1])
    names = [next(name for kind, name in _NAMES.items() if isinstance(layer, kind)) for layer, _ in group]
    return Stage(
        kind="+".join(name for name in names if len(group) == 1 or name != "pad"),
        kernel=next((layer.kernel_size[0] for layer, _ in group if isinstance(layer, nn.Conv2d)), 0),
        inner=tuple(inner.shape[1:]),
        output=tuple(group[-1][1].shape[1:]),
        parameters=sum(p.numel() for layer, _ in group for p in layer.parameters()),
        taps=tuple(i for i, tap in enumerate(taps, 1) if any(tap is output for _, output in group)),
    )


def generator_table(generator: Generator, image_size: int = 256) -> pd.DataFrame:
    """The layers of G, which the paper does not print, for an input of this side. Equal residual blocks share a row."""
    rows, numbers = [], Counter[str]()
    for stage, equal in groupby(stages(generator, 1, 3, image_size, image_size)):
        count, name = len(list(equal)), "padded input"
        if stage.kind != "pad":
            part = "Residual" if stage.kind == "Residual" else "Deconv" if numbers["Residual"] else "Conv"
            first, numbers[part] = numbers[part] + 1, numbers[part] + count
            name = f"{part}_{first}" + (f" … {numbers[part]}" if count > 1 else "")
        rows.append({
            "layer": name, "type": stage.kind,
            "kernel": _square(stage.kernel or (3 if stage.kind == "Residual" else 0)), "output": _size(stage.output),
            "tap": f"{', '.join(map(str, stage.taps))}: {_size(stage.inner)}" if stage.taps else "",
            "parameters": count * stage.parameters,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("layer")


def discriminator_table(discriminator: PatchDiscriminator, image_size: int = 256) -> pd.DataFrame:
    """Table 1: the printed sizes, which are for an image size of 256, beside those of the convolutions."""
    rows: list[dict[str, object]] = []
    layers = stages(discriminator, 1, 3, image_size, image_size)
    for stage, printed, seen in zip(layers, _PAPER_TABLE_1, patch_sizes(discriminator), strict=True):
        size = _size(stage.inner)
        rows.append({
            "layer": f"Conv2D_{len(rows) + 1}", "type": stage.kind, "kernel": _square(stage.kernel), "output": size,
            "the paper prints": printed, "agree": "yes" if printed == size else "no",
            "after halving": _size(stage.output) if stage.output != stage.inner else "",
            "parameters": stage.parameters, "one output sees": _square(seen),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("layer")


def patch_sizes(discriminator: PatchDiscriminator) -> list[int]:
    """The receptive field of each convolution of D, side in pixels, from the gradient of one output.

    Norms are left out: in training they see the whole batch.
    """
    x = image = torch.ones(1, 3, 128, 128, requires_grad=True)  # larger than any patch of five layers
    sizes = []
    for layer in discriminator.body:
        if not isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d):
            x = layer(x)
        if isinstance(layer, nn.Conv2d):
            centre = x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum()
            (gradient,) = torch.autograd.grad(centre, image, retain_graph=True)
            sizes.append(int((gradient != 0).any(1)[0].any(0).sum()))
    return sizes


def head_table(heads: nn.ModuleList) -> pd.DataFrame:
    """Table 2: the printed layers beside those of the heads, one a tap, and the parameters of each."""
    widths = [next(layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear)) for head in heads]
    every = [stages(head, 1, 1, width) for head, width in zip(heads, widths, strict=True)]
    rows = []
    for number, layers in enumerate(zip(*every, strict=True), 1):
        rows.append({
            "layer": f"MLP_{number}", "type": layers[0].kind, "kernel": "one place", "output": layers[0].output[-1],
            "the paper prints": _PAPER_TABLE_2 if number <= 4 else "",
            **{f"parameters, tap {tap}": layer.parameters for tap, layer in enumerate(layers, 1)},
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("layer")


def totals(model: CLGAN) -> pd.DataFrame:
    """Parameters of the three networks, and which of them detection needs."""
    parts = {"G": model.generator, "D": model.discriminator, "H": model.heads}
    rows = [(name, sum(p.numel() for p in part.parameters()), name == "G") for name, part in parts.items()]
    return pd.DataFrame(rows, columns=["network", "parameters", "kept for detection"]).set_index("network")


def _square(side: int) -> str:
    return f"{side}×{side}" if side else ""


def _size(shape: tuple[int, ...]) -> str:
    """``(C, H, W)`` as the paper writes it."""
    channels, height, width = shape
    return f"{height}×{width}×{channels}"
