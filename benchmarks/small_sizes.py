"""Training at the sizes of a laptop: images a second, and how much of a step its own convolutions take.

    python -m benchmarks.small_sizes [--repeats 8] [--threads 2] [--bf16]

The convolutions of one step, forward and backward, are recorded and repeated alone, in turn with the step. The share is
their time over the step's: 100 % would be a step that does nothing else. Products of matrices (the projection heads) are
beside them in a column of their own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import common
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import fresh_model

MODELS: dict[str, tuple[str, int, dict[str, object]]] = {
    "CLGAN, 64x64, width 16, 4 blocks, 64 patches": (
        "clgan", 64, {"width": 16, "blocks": 4, "batch_size": 4, "patches": 64}),
    "CLGAN, 64x64, width 16, 4 blocks": ("clgan", 64, {"width": 16, "blocks": 4, "batch_size": 4}),
    "CLGAN, 64x64, width 32, 6 blocks": ("clgan", 64, {"width": 32, "blocks": 6, "batch_size": 4}),
    "CLGAN-RC, 128x128": ("clgan_rc", 128, {}),
}  # fmt: skip
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)


class _Recorder(TorchDispatchMode):
    """Keeps the calls of some operators, with copies of their arguments."""

    def __init__(self, operators: tuple[Any, ...]) -> None:
        super().__init__()
        self.operators, self.calls = operators, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self.operators:
            copies = [a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args]
            self.calls.append((function, copies))
        return function(*args, **(kwargs or {}))

    @torch.no_grad()
    def repeat(self) -> None:
        """The same calls again, nothing else."""
        for function, args in self.calls:
            function(*args)


def sides(
    model: str, size: int, options: dict[str, object], *, bf16: bool
) -> tuple[int, dict[str, Callable[[], object]]]:
    """The images of a step, and what is timed in turn: the step, its convolutions, its products of matrices."""
    made = fresh_model(RunConfig(model=model, image_size=size, options=options, device="cpu"))
    images = torch.rand(made.draws * made.batch_size, 3, size, size) * 2 - 1

    def step() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return made.training_step(images, 0.2)

    step()
    recorders = {"convolutions": _Recorder(CONVOLUTIONS), "products": _Recorder(PRODUCTS)}
    for recorder in recorders.values():
        with recorder:
            step()
    return len(images), {"step": step} | {name: recorder.repeat for name, recorder in recorders.items()}


def main() -> None:
    """Print the table."""
    parser = common.parser(__doc__, repeats=8)
    parser.add_argument("--bf16", action="store_true", help="also in bf16; pays where the CPU has instructions for it")
    arguments = parser.parse_args()
    arguments.device = "cpu"
    common.begin(arguments)
    rows = []
    for name, (model, size, options) in MODELS.items():
        for bf16 in (False, True) if arguments.bf16 else (False,):
            count, timed = sides(model, size, options, bf16=bf16)
            times = common.paired(timed, arguments.repeats, warmup=2)
            shares = [
                f"{100 / common.ratio(times['step'], times[part]):.0f} %" for part in ("convolutions", "products")
            ]
            rates = common.spread([count / seconds for seconds in times["step"]])
            rows.append([name, "bf16" if bf16 else "float32", rates, *shares])
    common.table(["training", "precision", "images a s", "convolutions alone", "products of matrices alone"], rows)


if __name__ == "__main__":
    main()
