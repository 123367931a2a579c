"""From image to mask: each stage of the detector, and all of it for a whole batch.

    python -m benchmarks.detection [--sizes 64 256 512] [--images 16]

Prints tables in Markdown: post-processing alone (eq. 7 to 10) image by image, as a batch of tensors, and as plain NumPy and
OpenCV code; then from image to mask with CLGAN's generator.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.batched import detect_batch
from clgan_lib.data import to_float, to_uint8
from clgan_lib.detection import LUMA, detect
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import fresh_model

Pictures = NDArray[np.uint8]


def pictures(count: int, size: int) -> tuple[Pictures, Pictures]:
    """Images and what a model may reconstruct from them: smooth, noisy, a defect missing; ``(N, S, S, 3)`` each."""
    rng = np.random.default_rng(0)
    smooth = [cv2.GaussianBlur(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), (0, 0), 3) for _ in range(count)]
    images = np.stack(smooth)
    reconstructed = np.clip(images + rng.integers(-8, 9, images.shape), 0, 255).astype(np.uint8)
    images[:, size // 4 : size // 2, size // 4 : size // 3] //= 2
    return images, reconstructed


def plain(image: Pictures, reconstructed: Pictures, k: float = 3.0) -> NDArray[np.bool_]:
    """Eq. 7 to 10 as a first version has them: float64, NumPy's mean and sigma, OpenCV's blur and closing."""
    a, b = (cv2.GaussianBlur(x.astype(np.float64) / 255, (5, 5), 0) for x in (image, reconstructed))
    difference = cv2.GaussianBlur(np.abs(a - b), (5, 5), 0)
    channels = difference >= difference.mean((0, 1)) + k * difference.std((0, 1))
    gray = channels @ np.array(LUMA)
    binary = np.pad(((gray >= gray.mean() + gray.std()) & (gray > 0)).astype(np.uint8), 2)
    return cv2.morphologyEx(binary, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))[2:-2, 2:-2].astype(bool)


def postprocessing(sizes: list[int], count: int, repeats: int, device: torch.device) -> None:
    """The table of eq. 7 to 10 alone."""
    rows = []
    for size in sizes:
        images, reconstructed = pictures(count, size)
        a, b = (to_float(torch.from_numpy(x).permute(0, 3, 1, 2)).to(device) for x in (images, reconstructed))
        pairs = list(zip(images, reconstructed, strict=True))
        sides: dict[str, Callable[[], object]] = {
            "image by image": lambda pairs=pairs: [detect(x, y).mask for x, y in pairs],
            f"a batch on {device.type}": lambda a=a, b=b: detect_batch(a, b),
            "plain": lambda pairs=pairs: [plain(x, y) for x, y in pairs],
        }
        times = common.paired(sides, repeats)
        reference = np.stack([detect(x, y).mask for x, y in pairs])
        masks = {f"a batch on {device.type}": detect_batch(a, b).cpu().numpy(),
                 "plain": np.stack([plain(x, y) for x, y in pairs])}  # fmt: skip
        for name, seconds in times.items():
            differ = f"{(masks[name] != reference).mean():.1e}" if name in masks else ""
            rows.append([f"{size}, {name}", common.spread(seconds, count / 1000),
                         f"{common.ratio(times['plain'], seconds):.1f}", differ])  # fmt: skip
    print(f"Post-processing alone, {count} images\n")
    common.table(["image size", "ms an image", "times plain", "pixels that differ"], rows)


def end_to_end(
    sizes: list[int], batches: list[int], repeats: int, device: torch.device, options: dict[str, int], compiled: bool
) -> None:
    """The table from uint8 images to masks with CLGAN's generator; bf16 on a GPU."""
    rows, top = [], common.ceiling(device)
    cells = [(size, batches[-1]) for size in sizes] + [(sizes[0], batch) for batch in batches[:-1]]
    for size, batch in cells:
        config = RunConfig(model="clgan", category="bottle", image_size=size, options=dict(options), device=str(device))
        model = fresh_model(config.model_copy(update={"compiled": compiled}))
        images = torch.from_numpy(pictures(batch, size)[0]).permute(0, 3, 1, 2).contiguous().to(device)

        def run(model=model, images=images) -> None:  # type: ignore[no-untyped-def]
            floats = to_float(images)
            if device.type == "cuda":
                floats = floats.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                reconstructed = model.reconstruct(floats)
            detect_batch(floats, to_float(to_uint8(reconstructed))).cpu()

        seconds = common.paired({"run": run}, repeats, warmup=2)["run"]
        plain = fresh_model(config)
        work = common.flops_of(
            lambda plain=plain, size=size: plain.reconstruct(torch.zeros(1, 3, size, size, device=device))
        )
        rate = [batch / t for t in seconds]
        share = 100 * work * sorted(rate)[len(rate) // 2] / top
        rows.append([f"{size}, batch {batch}", common.spread(rate), work / 1e12, f"{share:.0f} %"])
    print(f"Image to mask, CLGAN, ceiling {top / 1e12:.3g} TFLOP/s\n")
    common.table(["image size", "images a s", "TFLOP an image", "of the ceiling"], rows)


def main() -> None:
    """Print the tables."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--sizes", type=int, nargs="+", help="64 256, and 512 on a GPU")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", help="1 4, up to 64 on a GPU")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    arguments = parser.parse_args()
    device = common.begin(arguments)
    gpu = device.type == "cuda"
    sizes = arguments.sizes or ([256, 64, 128, 512] if gpu else [64, 256])
    batches = arguments.batches or ([1, 4, 16, 32, 64] if gpu else [1, 4])
    postprocessing(sizes, arguments.images, arguments.repeats, device)
    options = {"width": arguments.width, "blocks": arguments.blocks}
    end_to_end(sizes, batches, arguments.repeats, device, options, arguments.compile)


if __name__ == "__main__":
    main()
