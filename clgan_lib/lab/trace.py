"""What an update of CLGAN does, watched from outside: networks used and moved, shapes going out, gradients coming back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clgan_lib.clgan import CLGAN


@dataclass
class Trace:
    """What one update left behind.

    Attributes:
        updated: networks whose weights moved.
        used: networks that data went through.
        shapes: by arrow.
        gradients: norm of the loss's gradient at an arrow's data, by arrow, or at a network's weights, by network.
        logits: D's answers, ``(B, 1, h, w)`` in the order of its calls.
    """

    updated: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    logits: list[Tensor] = field(default_factory=list)


def weights(model: CLGAN) -> dict[str, list[nn.Parameter]]:
    """The parameters of each network of Fig. 1; G's are its encoder's and its decoder's."""
    decoder = list(model.generator.decoder.parameters())
    ids = {id(p) for p in decoder}
    encoder = [p for p in model.generator.parameters() if id(p) not in ids]
    return {
        "G_enc": encoder,
        "G_dec": decoder,
        "D": list(model.discriminator.parameters()),
        "H": list(model.heads.parameters()),
    }


@contextmanager
def tracing(model: CLGAN, trace: Trace) -> Iterator[None]:
    """Write down shapes and gradients of all that happens inside, without changing any of it."""

    def watch(network: str, arrow: str) -> object:
        """A hook on what enters a network: its shape, and the gradient that comes back along that arrow."""

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            """Note the shape, and wait for the gradient."""
            trace.used.add(network)
            data = inputs[0].view_as(inputs[0])  # a name of its own, so that only this arrow's gradient is seen
            # G's output comes back to the encoder as the query; x itself needs no gradient.
            place = "query" if arrow == "x>enc" and data.requires_grad else arrow
            trace.shapes[place] = tuple(data.shape)
            if data.requires_grad:
                data.register_hook(lambda gradient: _add(trace, place, gradient))
            return (data,)

        return before

    def answered(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note D's logits."""
        trace.logits.append(output.detach())
        trace.shapes["D>L"] = tuple(output.shape)

    def projected(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note the size of what H answers."""
        trace.shapes["H>L"] = tuple(output.shape)

    generator = model.generator
    places = [(generator.pad, "G_enc", "x>enc"), (generator.decoder, "G_dec", "enc>dec")]
    places += [(model.discriminator, "D", "fake>D"), *((head, "H", "enc>H") for head in model.heads)]
    handles = [module.register_forward_pre_hook(watch(network, arrow)) for module, network, arrow in places]  # type: ignore[arg-type]
    handles.append(model.discriminator.register_forward_hook(answered))
    handles += [head.register_forward_hook(projected) for head in model.heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(trace: Trace, arrow: str, gradient: Tensor) -> None:
    """Several tensors share an arrow (five taps, two calls): the norm of them all."""
    trace.gradients[arrow] = (trace.gradients.get(arrow, 0.0) ** 2 + float(gradient.square().sum())) ** 0.5


def weight_gradients(model: CLGAN) -> dict[str, float]:
    """The norm of the gradient that the last update left at each network's weights."""
    found = {}
    for name, parameters in weights(model).items():
        squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
        found[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return found
