"""Another day's photographs: false alarms before and after `clgan calibrate`, by how many good images it was given.

    python -m benchmarks.recalibration --data PATH

Each case trains CLGAN-RC for a short time on good images. The other good images are another day's: those of leather are 17 %
lighter as they are, those of bottle are made so. Some are drawn to calibrate, the others are inspected; several times. The
table has means over the draws, with the range in parentheses.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks import common
from clgan_lib.augment import SYMMETRY
from clgan_lib.data import read_image, resize
from clgan_lib.interop.inspection import Inspector, calibration_file, load
from clgan_lib.interop.learning import learn_folder
from clgan_lib.interop.recalibration import recalibrate, share_interval
from clgan_lib.runs.evaluation import SIZE, anomaly_maps

SMALL = {"width": 8, "batch_size": 4, "learning_rate": 2e-3, "ema": 0.98, "lambda_x": 0.0, "average_poses": False}


@dataclass(frozen=True)
class Case:
    """Photographs of two days: where the product lies under the data folder, how many of its training images are used to
    train, and the factor of the light of all others."""

    folder: str
    train: int
    light: float


CASES = {"leather": Case("mvtec_ad_crops/leather", 64, 1.0), "bottle": Case("mvtec_ad/bottle", 120, 1.17)}


def days(data: Path, case: Case, work: Path) -> tuple[Path, list[Path], list[Path]]:
    """The folder to train on, and the files of the other day, good and defective, in its light."""
    product = data / case.folder
    train = sorted((product / "train/good").iterdir())
    others = train[case.train :] + sorted((product / "test/good").iterdir())
    defective = [path for path in sorted((product / "test").glob("*/*")) if path.parent.name != "good"]
    copy(train[: case.train], work / "train", 1.0)
    return work / "train", copy(others, work / "good", case.light), copy(defective, work / "defective", case.light)


def copy(paths: list[Path], folder: Path, light: float) -> list[Path]:
    """The images under a number each, their values times `light`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{i:03}.png" for i in range(len(paths))]
    for path, target in zip(paths, made, strict=True):
        pixels = np.asarray(read_image(path)).astype(float) * light
        Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(target)
    return made


def scores(inspector: Inspector, paths: list[Path]) -> NDArray[np.float32]:
    """Anomaly maps of files, ``(N, 256, 256)``."""
    pixels = np.stack([resize(read_image(path), SIZE) for path in paths])
    return anomaly_maps(inspector.model, torch.from_numpy(pixels).permute(0, 3, 1, 2))


def rates(good: NDArray[np.float32], defective: NDArray[np.float32], pixel: float, image: float) -> list[float]:
    """Percent of good images called defective, of good pixels marked, of defective images called defective."""
    called = [100 * float((maps.max((1, 2)) > image).mean()) for maps in (good, defective)]
    return [called[0], 100 * float((good > pixel).mean()), called[1]]


def spread(values: Sequence[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def measure(name: str, data: Path, budget: float, counts: list[int], draws: int) -> list[list[object]]:
    """The rows of one case."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        train, good_files, defective_files = days(data, CASES[name], work)
        options = {"image_size": 64, "budget": budget, "options": SMALL, "symmetry": SYMMETRY[name]}
        run = learn_folder(train, category=name, results_root=str(work / "results"), **options)
        inspector = load(run)
        print(
            f"{name}: trained on {len(list(train.iterdir()))} images, {budget:g} shown; {inspector.readiness}\n",
            flush=True,
        )
        good, defective = scores(inspector, good_files), scores(inspector, defective_files)
        before = rates(good, defective, inspector.threshold, inspector.image_threshold)
        rows: list[list[object]] = [[name, "before", len(good), *(f"{value:.1f}" for value in before), "", ""]]
        for count in (count for count in counts if count < len(good)):
            results, intervals, warned = [], [], 0
            for draw in range(draws):
                chosen = np.random.default_rng([draw, count]).permutation(len(good)) < count
                today = work / f"{count}-{draw}"
                copy([path for path, use in zip(good_files, chosen, strict=True) if use], today, 1.0)
                after, said = recalibrate(run, today)
                calibration_file(run).unlink()  # each draw starts from the thresholds of training
                results.append(rates(good[~chosen], defective, after.threshold, after.image_threshold))
                exceeding = int((np.array(after.card.maxima) > after.image_threshold).sum())
                intervals.append(share_interval(exceeding, count))
                warned += "warning" in said
            cells = [spread(column) for column in zip(*results, strict=True)]
            low, high = np.mean(intervals, axis=0)
            rows.append([name, count, len(good) - count, *cells, f"{low:.0%} to {high:.0%}", f"{warned} of {draws}"])
    return rows


def main() -> None:
    """Print the table."""
    parser = common.parser(__doc__, repeats=10)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--budget", type=float, default=4000, help="training images shown")
    parser.add_argument("--counts", nargs="+", type=int, default=[5, 10, 20, 50], help="good images to calibrate with")
    arguments = parser.parse_args()
    common.begin(arguments)
    rows = [
        row
        for name in arguments.cases
        for row in measure(name, arguments.data, arguments.budget, arguments.counts, arguments.repeats)
    ]
    header = ["product", "calibrated with", "good images inspected", "of them called defective, %", "good pixels marked, %",
              "defective images called defective, %", "interval printed, mean", "warned"]  # fmt: skip
    common.table(header, rows)


if __name__ == "__main__":
    main()
