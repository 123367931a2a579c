"""Finished runs on disturbed test images: other light, blur, noise, JPEG, and a product that lies a little differently.

    python -m benchmarks.robustness RUN [RUN ...] --out results/robustness [--data DATA] [--images 20]

RUN is a run folder (``results/<experiment>/<model>/<category>/seed<k>``). Nothing is trained or calibrated again: each model
keeps the threshold that an inspection would use. Writes ``robustness.csv``, a row a run, disturbance and severity;
``robustness.json`` with the settings and versions; and ``robustness.svg``. Prints the worst severity of each disturbance.
Geometric disturbances move the true masks, too. Severity 0 is the undisturbed image.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import common
from clgan_lib.data import Category, load_category
from clgan_lib.interop.inspection import Inspector, load
from clgan_lib.metrics import pixel_metrics
from clgan_lib.ranking import false_alarms, ranking_metrics
from clgan_lib.render.style import MARKERS, STYLE, captioned, save
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, predict
from clgan_lib.runs.execution import data_root, environment
from clgan_lib.training import set_threads

Pixels = NDArray[np.uint8]
MEASURES = {"F1": "F1, percent", "AUROC": "AUROC of pixels", "false_pixels": "good pixels marked, percent"}


def gain(image: Pixels, share: float) -> Pixels:
    """Each value times 1 + share."""
    return (image.astype(np.float32) * (1 + share)).round().clip(0, 255).astype(np.uint8)


def brightness(image: Pixels, share: float) -> Pixels:
    """Each value plus a share of the range."""
    return (image + 255 * share).round().clip(0, 255).astype(np.uint8)


def temperature(image: Pixels, share: float) -> Pixels:
    """Warmer light: red times 1 + share, blue times 1 - share."""
    return (image * np.array([1 + share, 1, 1 - share])).round().clip(0, 255).astype(np.uint8)


def blur(image: Pixels, sigma: float) -> Pixels:
    """A Gaussian with this sigma, in pixels at 256x256."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image


def noise(image: Pixels, share: float) -> Pixels:
    """Gaussian noise of each value, sigma a share of the range; the same noise in every image."""
    drawn = np.random.default_rng(0).normal(0, 255 * share, image.shape) if share else 0
    return (image + drawn).round().clip(0, 255).astype(np.uint8)


def jpeg(image: Pixels, loss: float) -> Pixels:
    """JPEG of quality 100 - loss; 0 is no JPEG."""
    if not loss:
        return image
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(100 - loss)])[1]
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def rotation(image: Pixels, degrees: float) -> Pixels:
    """Turned about its centre, reflected at the borders; a mask ``(H, W)`` keeps its values."""
    size = image.shape[0]
    return _warp(image, cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), degrees, 1.0))


def shift(image: Pixels, share: float) -> Pixels:
    """Moved to the right and down by a share of the side, likewise."""
    offset = share * image.shape[0]
    return _warp(image, np.array([[1, 0, offset], [0, 1, offset]], np.float64))


def _warp(image: Pixels, matrix: NDArray[np.floating]) -> Pixels:
    how = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=how, borderMode=cv2.BORDER_REFLECT_101)


Disturb = Callable[[Pixels, float], Pixels]
DISTURBANCES: dict[str, tuple[Disturb, tuple[float, ...]]] = {
    "gain": (gain, (-0.2, -0.1, 0, 0.1, 0.2)),
    "brightness": (brightness, (-0.2, -0.1, 0, 0.1, 0.2)),
    "temperature": (temperature, (-0.2, -0.1, 0, 0.1, 0.2)),
    "blur": (blur, (0, 1, 2)),
    "noise": (noise, (0, 0.02, 0.05)),
    "jpeg": (jpeg, (0, 30, 70)),
    "rotation": (rotation, (-2, 0, 2)),
    "shift": (shift, (0, 0.01, 0.02)),
}
GEOMETRIC = (rotation, shift)


def some(category: Category, count: int, left_out: list[str]) -> NDArray[np.int64]:
    """The first `count` test images of each type, 0 for all."""
    types = np.array(category.defects)
    kept = [np.flatnonzero(types == name) for name in sorted({*types} - {*left_out})]
    return np.sort(np.concatenate([places[: count or None] for places in kept]))


def disturbed(
    images: Pixels, truths: NDArray[np.bool_], name: str, severity: float
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Images ``(N, H, W, 3)`` and true masks ``(N, H, W)`` under one disturbance."""
    change = DISTURBANCES[name][0]
    changed = np.stack([change(image, severity) for image in images])
    if change not in GEOMETRIC:
        return changed, truths
    return changed, np.stack([change(truth.astype(np.uint8), severity) > 0 for truth in truths])


def score(inspector: Inspector, images: Pixels, truths: NDArray[np.bool_]) -> dict[str, float | None]:
    """F1 under the model's own threshold (a mean over defective images), rankings, and false positives on good images."""
    maps = predict(inspector.model, torch.from_numpy(images).permute(0, 3, 1, 2), native=False).scores
    masks, bad = maps > inspector.threshold, truths.any((1, 2))
    ranking = ranking_metrics(maps, truths)
    alarms = false_alarms(masks[~bad]) if not bad.all() else {"pixels": float("nan"), "images": float("nan")}
    called = 100 * float((maps[~bad].max((1, 2)) > inspector.image_threshold).mean()) if not bad.all() else float("nan")
    return {
        "F1": pixel_metrics(masks, truths)["F1"], "AP": ranking["AP"], "AUROC": ranking["AUROC"],
        "image_AUROC": ranking["image_AUROC"], "false_pixels": alarms["pixels"], "images_marked": alarms["images"],
        "false_images": called,
    }  # fmt: skip


def rows_of(folder: Path, data: str, count: int, names: list[str]) -> list[dict[str, Any]]:
    """The rows of one run."""
    inspector = load(folder, "cpu")
    settings = inspector.card.config.model_dump() | {"data_root": data or _data_of(folder)}
    config = RunConfig(**settings)
    category = load_category(data_root(config), config.category, SIZE, config.bit_depth)
    chosen = some(category, count, config.leave_out)
    images = np.ascontiguousarray(category.test[chosen].permute(0, 2, 3, 1).numpy())
    truths = category.masks.numpy()[chosen]
    where = {"data": config.data_name, "model": config.row, "category": config.category, "seed": config.seed}
    rows, unlit = [], score(inspector, images, truths)
    for name in names:
        for severity in DISTURBANCES[name][1]:
            found = score(inspector, *disturbed(images, truths, name, severity)) if severity else unlit
            rows.append({**where, "disturbance": name, "severity": severity, "images": len(images), **found})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _data_of(folder: Path) -> str:
    file = folder / "config.json"
    return str(json.loads(file.read_text(encoding="utf8"))["data_root"]) if file.is_file() else ""


def figure(frame: pd.DataFrame) -> Figure:
    """A row a measure, a column a disturbance, a line a run."""
    names = list(dict.fromkeys(frame["disturbance"]))
    with plt.rc_context(STYLE):
        shown, axes = plt.subplots(len(MEASURES), len(names), figsize=(1.9 * len(names) + 1, 6.4), squeeze=False,
                                   sharey="row", sharex="col")  # fmt: skip
        for i, (measure, label) in enumerate(MEASURES.items()):
            axes[i, 0].set_ylabel(label)
            for j, name in enumerate(names):
                lines = frame[frame["disturbance"] == name].groupby(["category", "model", "seed"], sort=False)
                for n, ((category, model, seed), part) in enumerate(lines):
                    axes[i, j].plot(part["severity"], part[measure], marker=MARKERS[n % len(MARKERS)], markersize=4,
                                    label=f"{model}, {category}, seed {seed}")  # fmt: skip
                axes[0, j].set_title(name)
        axes[2, 0].set_yscale("symlog", linthresh=1)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        shown.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
        return captioned(shown, "Test images under other light and other disturbances, each model with the threshold "
                         "of its own. Gain, brightness, temperature, noise and shift are shares, blur a sigma in "
                         "pixels at 256x256, jpeg 100 minus the quality, rotation degrees.")  # fmt: skip


def summary(frame: pd.DataFrame) -> None:
    """Print F1 and false alarms undisturbed, and at the worst severity of each disturbance."""
    rows = []
    for (category, model, seed, name), part in frame.groupby(["category", "model", "seed", "disturbance"], sort=False):
        plain, worst = part[part["severity"] == 0].iloc[0], part.loc[part["F1"].idxmin()]
        loss = 100 * (1 - worst["F1"] / plain["F1"]) if plain["F1"] else float("nan")
        rows.append([f"{model}, {category}, seed {seed}", name, plain["F1"], worst["F1"], worst["severity"], loss,
                     plain["false_pixels"], part["false_pixels"].max(), part["AUROC"].min()])  # fmt: skip
    header = ["run", "disturbance", "F1", "worst F1", "at", "loss, percent"]
    common.table([*header, "good pixels marked", "most", "lowest AUROC"], rows)


def main() -> None:
    """Write the table, the figure and the settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="", help="data root; by default that of each run")
    parser.add_argument("--images", type=int, default=0, help="test images a type; 0 for all")
    parser.add_argument("--disturbances", nargs="+", default=list(DISTURBANCES), choices=list(DISTURBANCES))
    arguments = parser.parse_args()
    set_threads(1)
    parts = [rows_of(run, arguments.data, arguments.images, arguments.disturbances) for run in arguments.runs]
    frame = pd.DataFrame([row for part in parts for row in part])
    arguments.out.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(arguments.out / "robustness.csv", index=False)
    severities = {name: DISTURBANCES[name][1] for name in arguments.disturbances}
    settings = {"runs": [str(run) for run in arguments.runs], "images": arguments.images, "severities": severities}
    settings["env"] = environment(torch.device("cpu"))
    (arguments.out / "robustness.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf8")
    save(figure(frame), arguments.out / "robustness", ("svg",))
    summary(frame)


if __name__ == "__main__":
    main()
