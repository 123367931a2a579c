"""Inspection of a folder of photographs: each stage on one thread, and `clgan inspect` as a whole.

    python -m benchmarks.inspection [--run RUN] [--images 32] [--size 1000] [--suffix png]

Without RUN the model is CLGAN-RC at 128 pixels, untrained, of a product with all eight symmetries: trained weights take as
long. The photographs are of the embedded bottle, enlarged, with noise. "One by one" is how a folder was inspected before: an
image at a time on all threads, overlays as PNG. Prints Markdown.
"""

import contextlib
import copy
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks import common
from clgan_lib.data import read_image, resize
from clgan_lib.interop import onnx_export, results
from clgan_lib.interop.inspection import Inspector, inspect_folder, load, use_symmetries
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, calibrate, predict
from clgan_lib.runs.execution import fresh_model
from clgan_lib.runs.weights import Card
from clgan_lib.synthetic import write_dataset

CONFIG = RunConfig(model="clgan_rc", category="bottle", image_size=128)


def photographs(folder: Path, count: int, size: int, suffix: str) -> list[Path]:
    """Files of ``(size, size)`` with the detail and noise of photographs, so that decoding and writing cost as much."""
    write_dataset(folder / "data", categories=["bottle"], train=8, test=8)
    sources = sorted((folder / "data/bottle/test").rglob("*.png"))
    (folder / "photographs").mkdir()
    files = [folder / f"photographs/{i:03}.{suffix}" for i in range(count)]
    rng = np.random.default_rng(0)
    for i, file in enumerate(files):
        pixels = cv2.resize(
            np.asarray(read_image(sources[i % len(sources)])), (size, size), interpolation=cv2.INTER_CUBIC
        )
        noise = rng.normal(0, 3, pixels.shape)
        Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8)).save(file, quality=92)
    return files


def untrained(files: list[Path]) -> Inspector:
    """CLGAN-RC as `clgan_lib.interop.learning` trains it, with thresholds from its own maps."""
    model = fresh_model(CONFIG).eval()
    model.fit(torch.zeros(0, 3, SIZE, SIZE), CONFIG.resolved_symmetry)
    images = torch.from_numpy(np.stack([resize(read_image(file), SIZE) for file in files[:4]])).permute(0, 3, 1, 2)
    maps, threshold = calibrate(model, images, CONFIG.quantile)
    return Inspector(model, Card(CONFIG, threshold, tuple(maps.max((1, 2)).tolist()), ""), float(maps.max()), "")


def one_by_one(inspector: Inspector, files: list[Path], out: Path) -> None:
    """What an inspection did before: all outputs of the model, and both pictures as PNG, one image after the other."""
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        image = read_image(file)
        pixels = torch.from_numpy(resize(image, SIZE).copy()).permute(2, 0, 1)[None]
        predictions = predict(inspector.model, pixels, native=False)
        mask = predictions.masks(inspector.threshold, 3.0)["calibrated"][0].astype(np.float32)
        own = cv2.resize(mask, image.size, interpolation=cv2.INTER_LINEAR) >= 0.5
        large = cv2.resize(predictions.scores[0], image.size, interpolation=cv2.INTER_LINEAR)
        weight = 0.55 * np.clip((large / inspector.threshold - 0.5) / 1.5, 0, 1)[..., None]
        blended = (1 - weight) * np.asarray(image, np.float32) + weight * np.asarray((213, 94, 0))
        for name, picture in (("mask", own.astype(np.uint8) * 255), ("overlay", blended.round().astype(np.uint8))):
            Image.fromarray(picture).save(out / f"{file.stem}_{name}.png", compress_level=3)


def with_bf16(side: Callable[[], object]) -> None:
    """Call a side in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        side()


def stages(inspector: Inspector, onnx: Inspector, files: list[Path], out: Path, repeats: int) -> None:
    """The table of the stages, an image at a time on one thread."""
    images = [read_image(file) for file in files]
    maps: NDArray[np.floating] = np.concatenate([inspector.maps([image]) for image in images])
    level = inspector.threshold
    pairs = list(zip(images, maps, strict=True))
    sides: dict[str, Callable[[], object]] = {
        "read": lambda: [read_image(file) for file in files],
        "reduce to 256": lambda: [resize(image, SIZE) for image in images],
        "map, PyTorch": lambda: [inspector.maps([image]) for image in images],
        "map, PyTorch, bf16": lambda: with_bf16(lambda: [inspector.maps([image]) for image in images]),
        "map, ONNX Runtime": lambda: [onnx.maps([image]) for image in images],
        "overlay and mask, written": lambda: [
            results.write_pictures(out, f"{i}.png", image, scores, scores > level, level)
            for i, (image, scores) in enumerate(pairs)
        ],
        "map, written": lambda: [np.save(out / "map.npy", scores.astype(np.float16)) for scores in maps],
    }  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu: dict[str, list[float]] = {}
    times = common.paired({name: spent(side, cpu.setdefault(name, [])) for name, side in sides.items()}, repeats)
    torch.set_num_threads(threads)
    print("Each stage on one thread\n")
    unit = len(files) / 1000
    rows = [[name, common.spread(t, unit), common.spread(cpu[name][-repeats:], unit)] for name, t in times.items()]
    common.table(["stage", "ms an image", "ms of a core an image"], rows)


def spent(side: Callable[[], object], seconds: list[float]) -> Callable[[], None]:
    """A side that prints nothing and adds its CPU time, which other programs hardly change, to a list."""

    def run() -> None:
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            side()
        seconds.append(time.process_time() - start)

    return run


def whole(inspector: Inspector, files: list[Path], work: Path, counts: list[int], repeats: int) -> None:
    """The table of a whole inspection, by runtime and number of symmetries."""
    sides: dict[str, Callable[[], object]] = {"one by one": lambda: one_by_one(inspector, files, work / "before")}
    for count in counts:
        file = work / f"{count}.onnx"
        fewer = replace(inspector, model=copy.deepcopy(inspector.model))
        use_symmetries(fewer.model, count)
        onnx_export.export(fewer, file)
        runtimes = {"PyTorch": fewer, "PyTorch, bf16": fewer, "ONNX Runtime": load(file)}
        for runtime, each in runtimes.items():
            inspect = partial(inspect_folder, each, files[0].parent, work / "out", bf16="bf16" in runtime)
            sides[f"{runtime}, {count} symmetries"] = inspect
    cpu: dict[str, list[float]] = {}
    times = common.paired({name: spent(side, cpu.setdefault(name, [])) for name, side in sides.items()}, repeats)
    print("Whole inspections, everything written\n")
    rows = []
    for name, seconds in times.items():
        rates = [len(files) / t for t in seconds]
        cores = common.spread(cpu[name][-repeats:], len(files) / 1000)
        rows.append([name, common.spread(rates), common.ratio(times["one by one"], seconds), cores])
    common.table(["how", "images a second", "times one by one", "ms of a core an image"], rows)


def main() -> None:
    """Print the tables."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--run", default="", help="trained model; empty: an untrained one")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--suffix", default="png", choices=["png", "jpg"])
    parser.add_argument("--symmetries", type=int, nargs="+", default=[8, 4, 2], help="used in test-time augmentation")
    arguments = parser.parse_args()
    common.begin(arguments)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        files = photographs(work, arguments.images, arguments.size, arguments.suffix)
        inspector = load(arguments.run, arguments.device) if arguments.run else untrained(files)
        onnx_export.export(inspector, work / "model.onnx")
        stages(inspector, load(work / "model.onnx"), files, work, arguments.repeats)
        whole(inspector, files, work, arguments.symmetries, arguments.repeats)


if __name__ == "__main__":
    main()
