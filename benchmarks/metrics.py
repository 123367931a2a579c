"""The measures of a whole category against scikit-learn and anomalib, and Table 4's sweep over k.

    python -m benchmarks.metrics [--anomalib-python PATH] [--sizes 128 256] [--images 20 80] [--ks 31]

Prints tables in Markdown. PATH is a Python that has anomalib; it works in a process of its own, on the same maps, turn by
turn with ours. Values are compared, too. The plain sides are scikit-learn on all pixels, and one detection for each k.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import common
from clgan_lib.detection import residual, threshold
from clgan_lib.exhibits.k_sweep import sweep
from clgan_lib.metrics import counts, metrics_from_counts
from clgan_lib.ranking import curve

# What anomalib's process does: one line in, all measures of the maps, one line out.
ANOMALIB = """
import json, sys, numpy as np, torch
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib import __version__
torch.set_num_threads(int(sys.argv[2]))
maps = np.load(sys.argv[1])
scores, truths = torch.from_numpy(maps["scores"]), torch.from_numpy(maps["truths"]).int()
print(__version__, flush=True)
for _ in sys.stdin:
    found = {}
    for name, metric in {"AUROC": _AUROC(), "AP": _AUPR(), "AUPRO": _AUPRO(fpr_limit=0.3)}.items():
        metric.update(scores, truths)
        found[name] = float(metric.compute())
    print(json.dumps(found), flush=True)
"""


def maps(count: int, size: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Score maps as detectors make them, and masks: `count` smooth noises of `size`, two images of three with a defect."""
    rng = np.random.default_rng(seed)
    scores = np.stack([cv2.GaussianBlur(rng.random((size, size), np.float32), (0, 0), 2) for _ in range(count)])
    truths = np.zeros(scores.shape, np.uint8)
    for i in range(count):
        for _ in range(1 + i % 3 if i % 3 else 0):
            place = tuple(int(v) for v in rng.integers(size // 8, size - size // 8, 2))
            cv2.circle(truths[i], place, int(rng.integers(size // 32 + 1, size // 8 + 1)), 1, -1)
    scores += 0.05 * cv2.GaussianBlur(truths[..., None].astype(np.float32).reshape(-1, size, 1), (0, 0), 1).reshape(
        scores.shape
    )
    return scores, truths.astype(bool)


def ours(scores: NDArray[np.float32], truths: NDArray[np.bool_]) -> dict[str, float]:
    """AUROC, AP and AUPRO, one curve for all."""
    found = curve(scores, truths)
    return {"AUROC": found.auroc(), "AP": found.average_precision(), "AUPRO": found.aupro()}


def plain(scores: NDArray[np.float32], truths: NDArray[np.bool_]) -> dict[str, float]:
    """AUROC and AP by scikit-learn, which has no AUPRO."""
    flat, labels = scores.ravel(), truths.ravel()
    return {"AUROC": float(roc_auc_score(labels, flat)), "AP": float(average_precision_score(labels, flat))}


class Anomalib:
    """anomalib's measures of the same maps, in a process of its own."""

    def __init__(self, python: str, path: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [python, "-c", ANOMALIB, str(path), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._line()

    def __call__(self) -> dict[str, float]:
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        return dict(json.loads(self._line()))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line:
            raise ValueError(
                "--anomalib-python: no answer from anomalib there (see above); give a Python that imports it"
            )
        return line


def ranking(cells: list[tuple[int, int]], repeats: int, threads: int, anomalib: str | None) -> None:
    """The table of AUROC + AP + AUPRO, a block of rows per (images, size)."""
    rows: list[list[object]] = []
    for count, size in cells:
        scores, truths = maps(count, size)
        sides: dict[str, Callable[[], dict[str, float]]] = {"this project": lambda s=scores, t=truths: ours(s, t)}
        sides[f"scikit-learn {sklearn.__version__}, no AUPRO"] = lambda s=scores, t=truths: plain(s, t)
        with tempfile.TemporaryDirectory() as folder:
            peer = None
            if anomalib:
                np.savez(Path(folder) / "maps.npz", scores=scores, truths=truths)
                peer = Anomalib(anomalib, Path(folder) / "maps.npz", threads)
                sides[f"anomalib {peer.version}"] = peer
            times = common.paired(sides, repeats)  # type: ignore[arg-type]
            values = {name: side() for name, side in sides.items()}
            if peer:
                peer.close()
        for name, found in values.items():
            gap = max(abs(found[key] - values["this project"][key]) for key in found)
            rows.append([f"{count} images at {size}, {name}", common.spread(times[name]),
                         f"{common.ratio(times[name], times['this project']):.1f}", *(f"{found[k]:.5f}" if k in found else ""
                         for k in ("AUROC", "AP", "AUPRO")), f"{gap:.1e}"])  # fmt: skip
    print("AUROC, AP and AUPRO of a category\n")
    common.table(["maps", "s", "times ours", "AUROC", "AP", "AUPRO", "furthest from ours"], rows)


def table4(count: int, size: int, how_many: int, repeats: int) -> None:
    """The table of the sweep over k, from pictures to rows."""
    rng = np.random.default_rng(0)
    pictures = (255 * maps(count, size)[0][..., None].repeat(3, 3)).astype(np.uint8)
    truths = maps(count, size)[1]
    reconstructed = np.clip(pictures + rng.integers(-6, 7, pictures.shape) + 40 * truths[..., None], 0, 255).astype(
        np.uint8
    )
    ks = list(np.linspace(2, 5, how_many).round(2))

    def swept(chosen: list[float]) -> list[float]:
        found = sweep([residual(a, b) for a, b in zip(pictures, reconstructed, strict=True)], truths, chosen)
        return list(found["F1"])

    def one_by_one() -> list[float]:
        scores = []
        for k in ks:
            masks = [threshold(residual(a, b), k).mask for a, b in zip(pictures, reconstructed, strict=True)]
            scores.append(metrics_from_counts(counts(np.stack(masks), truths))["F1"])
        return scores

    sides: dict[str, Callable[[], list[float]]] = {
        "one k": lambda: swept([3.0]),
        f"{how_many} k": lambda: swept(ks),
        f"{how_many} k, one by one": one_by_one,
    }
    times = common.paired(sides, repeats)  # type: ignore[arg-type]
    gap = max(abs(a - b) for a, b in zip(swept(ks), one_by_one(), strict=True))
    rows = [[name, common.spread(seconds, count / 1000), f"{common.ratio(seconds, times['one k']):.1f}"]
            for name, seconds in times.items()]  # fmt: skip
    print(f"Table 4, {count} images at {size}, from image and reconstruction; F1 differs by {gap:.1e} at most\n")
    common.table(["sweep", "ms an image", "times one k"], rows)


def main() -> None:
    """Print the tables."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--anomalib-python", help="a Python that has anomalib")
    parser.add_argument("--images", type=int, nargs="+", default=[20, 80])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--ks", type=int, default=31)
    arguments = parser.parse_args()
    common.begin(arguments)
    cells = [(count, size) for size in arguments.sizes for count in arguments.images]
    try:
        ranking(cells, arguments.repeats, arguments.threads or 1, arguments.anomalib_python)
    except ValueError as error:
        sys.exit(str(error))
    table4(arguments.images[0], arguments.sizes[-1], arguments.ks, arguments.repeats)


if __name__ == "__main__":
    main()
