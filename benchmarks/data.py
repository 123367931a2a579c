"""Loading and augmenting a category, and what a notebook costs a run of the grid.

    python -m benchmarks.data [--sizes 64 256] [--images 40] [--notebook]

Prints tables in Markdown. The plain side decodes with OpenCV, one file after the other. Poses and crops are counted on one
image at a time, as the trainer does. --notebook executes notebooks/10_train.ipynb as the grid does, on a control and on a
short CLGAN, and says what passes before and after the training (a minute; `taskset -c 0` keeps it on one core).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch

from benchmarks import common
from clgan_lib import synthetic
from clgan_lib.augment import augment
from clgan_lib.data import find_files, load_category, to_float
from clgan_lib.paths import ROOT

SYMMETRIES = ("none", "quarters+flips", "any+flips")


def plain(root: Path, size: int) -> int:
    """Decode all images and masks of the bottle with OpenCV."""
    files = find_files(root, "bottle")
    pictures = [cv2.resize(cv2.imread(str(path)), (size, size), interpolation=cv2.INTER_AREA) for path in files.all()]  # type: ignore[arg-type]
    return len(np.stack(pictures))


def loading(sizes: list[int], counts: list[int], repeats: int) -> None:
    """The table of a category read from its files, and again from the cache."""
    rows = []
    for size, count in [(size, counts[-1]) for size in sizes] + [(sizes[0], count) for count in counts[:-1]]:
        with tempfile.TemporaryDirectory() as folder:
            root, cache = Path(folder) / "data", Path(folder) / "cache"
            synthetic.write_dataset(root, categories=["bottle"], image_size=2 * size, train=count, test=10)
            decoded = cache / "decoded"

            def cold(root: Path = root, decoded: Path = decoded, size: int = size) -> None:
                for old in decoded.glob("*.safetensors"):
                    old.unlink()
                load_category(root, "bottle", size)

            sides: dict[str, Callable[[], object]] = {
                "from files": cold,
                "from the cache": lambda root=root, size=size: load_category(root, "bottle", size),
                "plain": lambda root=root, size=size: plain(root, size),
            }
            with mock.patch("clgan_lib.data.CACHE", cache):
                times = common.paired(sides, repeats)
            files = len(list(find_files(root, "bottle").all()))
        for name, seconds in times.items():
            rates, faster = [files / t for t in seconds], common.ratio(times["plain"], seconds)
            rows.append(
                [f"{files} files to {size}, {name}", common.spread(seconds), common.spread(rates), f"{faster:.1f}"]
            )
    print("Loading a category\n")
    common.table(["files of twice the size", "s", "files a s", "times plain"], rows)


def augmenting(sizes: list[int], repeats: int, device: torch.device) -> None:
    """The table of poses and crops, a batch of 8."""
    rows = []
    for size in sizes:
        images = (torch.rand(8, 3, size, size, device=device) * 255).to(torch.uint8)
        for symmetry in SYMMETRIES:
            for crop in (False, True):
                step = lambda i=images, s=symmetry, c=crop: augment(to_float(i), s, crop=c)  # noqa: E731
                seconds = common.paired({"step": step}, repeats)["step"]
                name = f"{size}, {symmetry}{', crop' if crop else ''}"
                rows.append([name, common.spread(seconds, 8 / 1000), common.spread([8 / t for t in seconds])])
    print(f"Poses and crops on {device.type}\n")
    common.table(["image size, symmetry", "ms an image", "images a s"], rows)


def notebook(threads: int) -> None:
    """The table of one run as the grid does it, a control and a short CLGAN at 64x64, the data drawn and decoded before."""
    rows = []
    for model, options in (("blur", {}), ("clgan", {"width": 16, "blocks": 4, "patches": 64})):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"model": model, "options": options, "category": "bottle", "budget": 8, "image_size": 64,
                        "embedded_test": 30, "threads": threads, "results_root": folder}  # fmt: skip
            call = [
                sys.executable,
                "-m",
                "clgan_lib.runs.notebook",
                str(ROOT / "notebooks" / "10_train.ipynb"),
                f"{folder}/out.ipynb",
            ]
            call += ["-y", json.dumps(settings), "--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR"]
            for _ in range(2):
                began = datetime.now(UTC)
                subprocess.run(call, check=True, capture_output=True)
                ended = datetime.now(UTC)
            cells = json.loads(Path(folder, "out.ipynb").read_text())["cells"]
            spent = json.loads(next(Path(folder).rglob("metrics.json")).read_text())["time"]
        training = next(c for c in cells if "train_run(" in "".join(c["source"]))["metadata"]["papermill"]
        first, last = (datetime.fromisoformat(training[name]) for name in ("start_time", "end_time"))
        before, during, after = (step.total_seconds() for step in (first - began, last - first, ended - last))
        rows.append([model, before, during, after - spent["evaluate_s"], spent["evaluate_s"]])
    print("A run as a notebook, in seconds\n")
    common.table(["model", "before training", "training", "after it, without evaluation", "evaluation"], rows)


def main() -> None:
    """Print the tables."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--images", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--notebook", action="store_true")
    arguments = parser.parse_args()
    device = common.begin(arguments)
    loading(arguments.sizes, arguments.images, arguments.repeats)
    augmenting(arguments.sizes, arguments.repeats, device)
    if arguments.notebook:
        notebook(arguments.threads)


if __name__ == "__main__":
    main()
