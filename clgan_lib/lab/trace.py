"""A record of one update of CLGAN: networks used and updated, shapes forward, gradients backward."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from clgan_lib.clgan import CLGAN


@dataclass
class Trace:
    """What was observed during one update; arrows and networks are those of Fig. 1.

    Attributes:
        updated: networks whose weights moved.
        used: networks that data went through.
        shapes: by arrow.
        gradients: norm of the loss's gradient at an arrow's data, by arrow, or at a network's weights, by network.
        logits: D's predictions, ``(B, 1, h, w)`` in the order of its calls.
    """

    updated: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    logits: list[Tensor] = field(default_factory=list)


def weights(model: CLGAN) -> dict[str, list[nn.Parameter]]:
    """The parameters of each network of Fig. 1; G's are its encoder's and its decoder's."""
    return {
        "G_enc": [p for name, p in model.generator.named_parameters() if not name.startswith("decoder.")],
        "G_dec": list(model.generator.decoder.parameters()),
        "D": list(model.discriminator.parameters()),
        "H": list(model.heads.parameters()),
    }


@contextmanager
def tracing(model: CLGAN, trace: Trace) -> Iterator[None]:
    """Record shapes and gradients of the networks' calls within the context, without changing any of them."""

    def entering(network: str, arrow: str) -> object:
        """A hook on a network's input: its shape, and the gradient that comes back along that arrow."""

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            """Record an input's shape, and watch its gradient."""
            trace.used.add(network)
            data = inputs[0].view_as(inputs[0])  # a tensor of its own, so that only this arrow's gradient is seen
            # G's output comes back to the encoder as the query; x itself needs no gradient.
            place = "query" if arrow == "x>enc" and data.requires_grad else arrow
            trace.shapes[place] = tuple(data.shape)
            if data.requires_grad:
                data.register_hook(lambda gradient: _add(trace, place, gradient))
            return (data,)

        return before

    def leaving(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Record an output's shape, and D's logits."""
        if module is model.discriminator:
            trace.logits.append(output.detach())
        trace.shapes["D>L" if module is model.discriminator else "H>L"] = tuple(output.shape)

    generator = model.generator
    places = [(generator.pad, "G_enc", "x>enc"), (generator.decoder, "G_dec", "enc>dec")]
    places += [(model.discriminator, "D", "fake>D"), *((head, "H", "enc>H") for head in model.heads)]
    handles = [module.register_forward_pre_hook(entering(network, arrow)) for module, network, arrow in places]  # type: ignore[arg-type]
    handles += [module.register_forward_hook(leaving) for module in (model.discriminator, *model.heads)]
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
    gradients = {name: [p.grad for p in group if p.grad is not None] for name, group in weights(model).items()}
    return {name: float(nn.utils.get_total_norm(group)) for name, group in gradients.items()}
