"""Adam and AdamW of torch, which start in a hundredth of the time: without their decorators for torch.compile.

At an optimiser's first step the decorators import the compiler, 1.5 s of every process. No optimiser is compiled here.
"""

import inspect
from collections.abc import Iterable

import torch
from torch import nn


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, the same updates; its arguments."""

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
