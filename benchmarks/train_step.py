"""CLGAN's training step against CUT's, and how its cost grows.

    python -m benchmarks.train_step [--cut PATH] [--sizes 64 128 256] [--batches 1 4] [--compile] [--bf16] [--project]

Prints tables in Markdown. PATH is a checkout of github.com/taesungp/contrastive-unpaired-translation, whose step at its
defaults (batch norm aside, the same networks) is run on one A and one B image. Two yardsticks: time per step of the recipe,
and images through G per second, because "shared" pairs show G half as many images a step as "two draws" or CUT.
With --compile or --bf16 (a GPU always has it) both are there again, as ``compiled: true`` and ``precision: bf16`` of a run
train them. The ceiling is that of the same precision. --project measures every model and estimates a grid of
4 models x 8 categories x CUT's 400 epochs (the paper states none); on a GPU that is the default.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import fresh_model

Step = Callable[[], object]
RIVALS = ("clgan", "vae_ssim", "udcae", "dcgan")
EPOCHS = 400  # CUT's; the paper states none
# Good training images of the paper's eight categories in MVTec AD (Bergmann et al., CVPR 2019, Table 1).
TRAIN_IMAGES = {"bottle": 209, "carpet": 280, "grid": 264, "hazelnut": 391, "leather": 245, "metal_nut": 220, "tile": 230,
                "wood": 247}  # fmt: skip


def model_step(
    *, size: int, batch: int | None = None, model: str = "clgan", pairs: str = "shared", width: int = 64, blocks: int = 9,
    device: str = "cpu", compiled: bool = False, bf16: bool = False,
) -> Step:  # fmt: skip
    """A training step of one of our models, on random images; in bf16 on a GPU, as the trainer has it.

    Args:
        size, batch: of the images; without a batch the model's own.
        pairs, width, blocks: CLGAN's.
        compiled: with torch.compile.
        bf16: in bf16 on a CPU, too.
    """
    options: dict[str, object] = {} if batch is None else {"batch_size": batch}
    options |= {"pairs": pairs, "width": width, "blocks": blocks} if model == "clgan" else {}
    config = RunConfig(model=model, image_size=size, options=options, device=device, compiled=compiled)
    made = fresh_model(config)
    images = torch.rand(made.draws * made.batch_size, 3, size, size, device=made.device) * 2 - 1
    if made.device.type == "cuda":
        images = images.contiguous(memory_format=torch.channels_last)

    def step() -> object:
        with torch.autocast(made.device.type, torch.bfloat16, enabled=bf16 or made.device.type == "cuda"):
            return made.training_step(images, 0.2)

    step.images = len(images)  # type: ignore[attr-defined]
    return step


def cut_step(
    *, size: int, batch: int = 1, cut: str, width: int = 64, blocks: int = 9, device: str = "cpu"
) -> Step:  # fmt: skip
    """CUT's step at its defaults, on `batch` images of each domain.

    Raises:
        ValueError: if `cut` is not a checkout of it, or it has no generator of so many blocks.
    """
    if blocks not in (6, 9):
        raise ValueError(f"--blocks: CUT has generators of 6 or 9, got {blocks}")
    if not (Path(cut) / "models" / "cut_model.py").is_file():
        raise ValueError(
            f"--cut: {cut} has no models/cut_model.py; give a checkout of contrastive-unpaired-translation"
        )
    sys.path.insert(0, str(Path(cut).resolve()))
    from models import create_model  # type: ignore[import-not-found]
    from options.train_options import TrainOptions  # type: ignore[import-not-found]

    line = f"--dataroot . --name benchmark --crop_size {size} --batch_size {batch} --checkpoints_dir {os.devnull}"
    line += f" --ngf {width} --ndf {width} --netG resnet_{blocks}blocks"
    with contextlib.redirect_stdout(io.StringIO()):
        options = TrainOptions(line).gather_options()
        options.isTrain, options.gpu_ids = True, [0] if torch.device(device).type == "cuda" else []
        made = create_model(options)
        data = {side: torch.rand(batch, 3, size, size) * 2 - 1 for side in "AB"} | {"A_paths": [""], "B_paths": [""]}
        made.data_dependent_initialize(data)
        made.setup(options)

    def step() -> None:
        made.set_input(data)
        made.optimize_parameters()

    step.images = 2 * batch  # type: ignore[attr-defined]
    return step


def compare(arguments: argparse.Namespace, device: torch.device, tops: dict[bool, float]) -> None:
    """The table against CUT; `tops` are the ceilings in float32 and, where bf16 is asked for, in it."""
    size, batch = arguments.compare_size, arguments.compare_batch
    own = {"size": size, "batch": batch, "width": arguments.width, "blocks": arguments.blocks, "device": str(device)}
    sides: dict[str, tuple[str, dict[str, object]]] = {}
    if arguments.cut:
        sides["CUT"] = ("cut_step", {**own, "cut": arguments.cut})
        if batch > 1:
            sides["CUT as published, batch 1"] = ("cut_step", {**own, "cut": arguments.cut, "batch": 1})
    faster = {"compiled": arguments.compile, "bf16": arguments.bf16}
    for pairs in ("shared", "two_draws"):
        sides[f"CLGAN, {pairs}"] = ("model_step", {**own, "pairs": pairs})
        if any(faster.values()):
            name = ", ".join(["CLGAN", pairs, *(way for way, asked in faster.items() if asked)])
            sides[name] = ("model_step", {**own, "pairs": pairs, **faster})
    steps = {name: globals()[function](**given) for name, (function, given) in sides.items()}
    times = common.paired(steps, arguments.repeats, warmup=arguments.warmup)
    memory = {name: common.peak_memory("benchmarks.train_step", f, **given) for name, (f, given) in sides.items()}
    rows = []
    for name, (_, given) in sides.items():
        work = common.flops_of(model_step(**{**given, "compiled": False}) if "pairs" in given else steps[name])
        top = tops[bool(given.get("bf16"))]
        median = sorted(times[name])[len(times[name]) // 2]
        rates = [steps[name].images / t for t in times[name]]
        against = ["", "", ""]
        if arguments.cut:
            rate_cut = [steps["CUT"].images / t for t in times["CUT"]]
            against = [f"{common.ratio(times['CUT'], times[name]):.2f}", f"{common.ratio(rates, rate_cut):.2f}",
                       f"{100 * memory[name] / memory['CUT']:.0f} %"]  # fmt: skip
        rows.append([name, common.spread(times[name]), common.spread(rates), f"{memory[name] / common.MiB:.0f}",
                     work / 1e12, work / median / 1e12, f"{100 * work / median / top:.0f} %", *against])  # fmt: skip
    print(f"One step at {size}x{size}, batch {batch}, width {arguments.width}, {arguments.blocks} blocks\n")
    common.table(["side", "s a step", "images through G a s", "peak MiB", "TFLOP a step", "TFLOP/s", "of the ceiling",
                  "steps, times CUT", "images, times CUT", "memory of CUT's"], rows)  # fmt: skip


def growth(arguments: argparse.Namespace, device: torch.device, top: float) -> None:
    """How the step grows with the image's size and with the batch."""
    if not arguments.sizes:
        return
    cells = [(size, 1) for size in arguments.sizes] + [(arguments.sizes[0], b) for b in arguments.batches if b > 1]
    rows = []
    for size, batch in cells:
        given = {
            "size": size,
            "batch": batch,
            "width": arguments.width,
            "blocks": arguments.blocks,
            "device": str(device),
        }
        times = common.paired({"step": model_step(**given)}, arguments.repeats)["step"]
        peak = common.peak_memory("benchmarks.train_step", "model_step", **given)
        work = common.flops_of(model_step(**given))
        rates = [batch / t for t in times]
        share = 100 * work / sorted(times)[len(times) // 2] / top
        rows.append([f"{size}, batch {batch}", common.spread(times), common.spread(rates), f"{peak / common.MiB:.0f}",
                     work / 1e12, f"{share:.0f} %"])  # fmt: skip
    print("CLGAN's shared step as it grows\n")
    common.table(["image size", "s a step", "images a s", "peak MiB", "TFLOP a step", "of the ceiling"], rows)


def project(arguments: argparse.Namespace, device: torch.device) -> None:
    """The time of a grid of 4 models x 8 categories, from the rate at which each model trains."""
    rows, total = [], 0.0
    images = EPOCHS * sum(TRAIN_IMAGES.values())
    for model in RIVALS:
        made: dict[str, Any] = {"model": model, "size": arguments.compare_size, "device": str(device)}
        step = model_step(**made)
        if device.type == "cuda" and step.images < arguments.grid_batch:  # type: ignore[attr-defined]
            step = model_step(**made, batch=arguments.grid_batch, compiled=arguments.compile)
        times = common.paired({model: step}, arguments.repeats, warmup=arguments.warmup)[model]
        rates = [step.images / t for t in times]  # type: ignore[attr-defined]
        minutes = images / sorted(rates)[len(rates) // 2] / 60
        total += minutes
        rows.append([model, step.images, common.spread(rates), f"{minutes:.1f}"])  # type: ignore[attr-defined]
    rows.append(["all, one after the other", "", "", f"{total:.1f}"])
    print(f"Projected: 4 models x {len(TRAIN_IMAGES)} categories, {EPOCHS} epochs, {images:,} images a model\n")
    common.table(["model", "images a step", "images a s", "minutes for 8 categories"], rows)


def main() -> None:
    """Print the tables."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--cut", help="a checkout of CUT")
    parser.add_argument("--compare-size", type=int, default=256)
    parser.add_argument("--compare-batch", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--grid-batch", type=int, default=16, help="at least, on a GPU, in the projection")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument(
        "--bf16", action="store_true", help="also in bf16 on a CPU; pays where it has instructions for it"
    )
    parser.add_argument("--project", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    arguments = parser.parse_args()
    device = common.begin(arguments)
    tops = {bf16: common.ceiling(device, bf16=bf16) for bf16 in sorted({False, arguments.bf16})}
    print(
        f"Ceiling measured: {' and, in bf16, '.join(f'{top / 1e12:.3g}' for top in tops.values())} TFLOP/s\n",
        flush=True,
    )
    try:
        compare(arguments, device, tops)
    except ValueError as error:
        sys.exit(str(error))
    growth(arguments, device, tops[False])
    if arguments.project or (arguments.project is None and device.type == "cuda"):
        project(arguments, device)


if __name__ == "__main__":
    main()
