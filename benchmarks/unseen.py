"""What was tried for products that CLGAN-RC was not developed on, and for other light: the rows of `unseen.csv`.

    python -m benchmarks.unseen --data DATA --category magnetic_tile --size 64 --budget 2000 --out FOLDER --trial NAME

Several comparators learn side by side on one generator, from the same images and anomalies: a comparator has an optimiser
of its own and moves nothing of the generator. Evaluates up to 20 test images a type under three gains of the light, in one
pose, with the thresholds that the model would choose. `--control template` does the same with a control. Appends a row a
comparator, light and gain to ``FOLDER/unseen.csv``; where weights lie in the folder, nothing is trained.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clgan_lib.augment import match_brightness, with_gain
from clgan_lib.calibration import best_single
from clgan_lib.data import to_float
from clgan_lib.metrics import pixel_metrics
from clgan_lib.model import ReconstructionModel, blur5
from clgan_lib.ranking import ranking_metrics
from clgan_lib.restoring import model as restoring
from clgan_lib.restoring.comparator import Comparator, differences
from clgan_lib.restoring.model import RestoringModelWithComparator
from clgan_lib.restoring.validation_anomalies import add_anomalies
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import anomaly_maps, resize
from clgan_lib.runs.execution import Run, start_run, train_run

MARGIN = 0.05  # of the range, as the jitter of training has it
PER_TYPE = 20  # test images a type
TAPS = 4  # of G's encoder
GAINS = [0.0, -0.2, 0.2]  # of the test images, less 1


def everything(
    images: Tensor, others: Tensor, taps: list[Tensor], other_taps: list[Tensor], *, context: bool = True
) -> list[Tensor]:
    """The differences, then the image, then the unit features of the image at each tap."""
    plain = differences(images, others, taps, other_taps)
    return [*plain, images, *(F.normalize(tap, dim=1) for tap in taps)]


DIFFERENCES, IMAGE = list(range(TAPS + 1)), [TAPS + 1]
FEATURES = list(range(TAPS + 2, 2 * TAPS + 2))
CANDIDATES: dict[str, tuple[list[int], tuple[int, ...]]] = {  # what it sees, and the dilations of its convolutions
    "differences": (DIFFERENCES, (1, 1)),
    "image": (DIFFERENCES + IMAGE, (1, 1)),
    "features": (DIFFERENCES + FEATURES, (1, 1)),
    "far": (DIFFERENCES, (1, 1, 2, 4)),
    "image far": (DIFFERENCES + IMAGE, (1, 1, 2, 4)),
    "features far": (DIFFERENCES + FEATURES, (1, 1, 2, 4)),
}


class Candidate(Comparator):
    """A comparator that sees some of `everything`, with dilated convolutions."""

    def __init__(self, channels: tuple[int, ...], seen: list[int], dilations: tuple[int, ...], width: int = 32) -> None:
        sizes = (3, *channels, 3, *channels)
        super().__init__(tuple(sizes[i] for i in seen[1:]), width)
        self.seen = seen
        layers: list[nn.Module] = [nn.BatchNorm2d(width), nn.ReLU()]
        for d in dilations:
            layers += [nn.Conv2d(width, width, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return super().forward([inputs[i] for i in self.seen])


class Candidates(nn.Module):
    """Several comparators in the place of one."""

    def __init__(self, channels: tuple[int, ...], names: list[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: Candidate(channels, *CANDIDATES[name]) for name in names})

    def loss(self, inputs: list[Tensor], anomaly: Tensor) -> Tensor:
        """The sum: their weights are their own, and so are Adam's steps."""
        return torch.stack([part.loss(inputs, anomaly) for part in self.parts.values()]).sum()  # type: ignore[operator]


class SideBySide(RestoringModelWithComparator):
    """CLGAN-RC with several comparators."""

    def __init__(self, *, image_size: int, comparators: list[str], gain: float = 0.0, **options: Any) -> None:
        self.names, self.gain = comparators, gain
        restoring.differences = everything  # type: ignore[attr-defined]
        restoring.Comparator = lambda channels: Candidates(channels, comparators)  # type: ignore[attr-defined,assignment]
        super().__init__(image_size=image_size, **options)

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        if self.gain:  # each image under another light
            images = with_gain(images, images.new_empty(len(images), 1, 1, 1).uniform_(1 - self.gain, 1 + self.gain))
        return super().training_step(images, progress)


def relit_scores(run: Run, model: ReconstructionModel, lights: list[str]) -> list[dict[str, Any]]:
    """A row a comparator, gain and way to match the light: rankings, F1 under two thresholds, false positives."""
    types, rows = np.array(run.category.defects), []
    chosen = np.concatenate([np.flatnonzero(types == name)[:PER_TYPE] for name in sorted({*types})])
    truths, bad, test = run.category.masks.numpy()[chosen], types[chosen] != "good", run.category.test[chosen]
    for light in lights:

        def prepared(images: Tensor, light: str = light) -> Tensor:
            return lit(images, factors(images, run.train_images, light))

        thresholds = thresholds_of(model, prepared(run.holdout))
        for gain in GAINS:
            images = prepared(lit(test, torch.tensor([1 + gain])))
            for name, maps in maps_of(model, images).items():
                own = maps > thresholds[name]["own"]
                ranking = ranking_metrics(maps[:, ::2, ::2], truths[:, ::2, ::2], bad)
                settings = {"comparator": name, "light": light, "gain": gain}
                named = {key: ranking[key] for key in ("AP", "AUROC", "AUPRO_0.3", "image_AUROC", "F1_oracle")}
                marked = {f"false_{key}": 100 * float((maps[~bad] > t).mean()) for key, t in thresholds[name].items()}
                f1 = {f"F1_{key}": pixel_metrics(maps > t, truths)["F1"] for key, t in thresholds[name].items()}
                rows.append(
                    {**settings, **named, **f1, **marked, "images_marked": 100 * float(own[~bad].any((1, 2)).mean())}
                )
    return rows


def factors(images: Tensor, train: Tensor, light: str) -> Tensor:
    """By what each image is multiplied, ``(N,)``: 1, or so that its median or mean is one of the training images."""
    if light == "as it is":
        return torch.ones(len(images))
    grey, seen = (part.float().mean(1).flatten(1) for part in (images, train))
    if light == "median":
        return seen.median(1).values.mean() / grey.median(1).values.clamp_min(1)
    mean, known = grey.mean(1).clamp_min(1), seen.mean(1)
    if light == "mean":
        return known.mean() / mean
    return mean.clamp(known.min() * (1 - MARGIN), known.max() * (1 + MARGIN)) / mean


def lit(images: Tensor, factors: Tensor) -> Tensor:
    """uint8 images, each times its factor."""
    return (images.float() * factors.view(-1, 1, 1, 1)).round().clamp(0, 255).to(torch.uint8)


def thresholds_of(model: ReconstructionModel, holdout: Tensor) -> dict[str, dict[str, float]]:
    """The thresholds of `RestoringModel.calibrate` and the 99 % quantile, by comparator, at 256x256."""
    if not isinstance(model, SideBySide):
        return {name: dict.fromkeys(("own", "calibrated"), float(np.quantile(maps, 0.99)))
                for name, maps in maps_of(model, holdout).items()}  # fmt: skip
    good = holdout.permute(0, 2, 3, 1).numpy()
    pairs = [add_anomalies(good, seed) for seed in range(2)]
    corrupted, truths = (np.concatenate(part) for part in zip(*pairs, strict=True))
    scores = maps_of(model, torch.from_numpy(corrupted).permute(0, 3, 1, 2))
    lowest = {name: float(np.quantile(maps, 0.99)) for name, maps in maps_of(model, holdout).items()}
    small = {name: maps[:, ::2, ::2] for name, maps in scores.items()}
    highest = {name: best_single(maps, truths[:, ::2, ::2])[0] for name, maps in small.items()}
    return {name: {"own": (highest[name] * low) ** 0.5, "calibrated": low} for name, low in lowest.items()}


@torch.no_grad()
def maps_of(model: ReconstructionModel, images: Tensor) -> dict[str, NDArray[np.float32]]:
    """The maps of all comparators for uint8 ``(M, 3, 256, 256)``, ``(M, 256, 256)`` each, in one pose; or of a control."""
    model.eval()
    if not isinstance(model, SideBySide):
        return {"none": anomaly_maps(model, images)}
    maps: dict[str, list[NDArray[np.float32]]] = {name: [] for name in model.names}
    for batch in images.split(16):
        small = match_brightness(resize(to_float(batch), model.image_size, antialias=True), model.brightness)[0]
        restored, taps = model.average.forward_with_taps(small)
        inputs = everything(small, restored, taps, model.average.encode(restored))
        for name, part in model.comparator_average.parts.items():  # type: ignore[union-attr,operator]
            scores = blur5(part.probability(inputs)[:, None]).clamp(0, 1 - 1e-6)
            maps[name].append(resize(-torch.log1p(-scores))[:, 0].numpy())
    return {name: np.concatenate(parts) for name, parts in maps.items()}


def main() -> None:
    """Train, evaluate, append the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="")
    parser.add_argument("--category", required=True)
    parser.add_argument("--budget", type=float, default=4000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={}, help="the model's, as JSON")
    parser.add_argument("--comparators", nargs="+", default=list(CANDIDATES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trial", default="trial")
    parser.add_argument("--control", default="", help="a control, such as template, in the place of CLGAN-RC")
    parser.add_argument("--lights", nargs="+", default=["as it is"], help="of: 'as it is', median, mean, range")
    a = parser.parse_args()
    several = {} if a.control else {"comparators": a.comparators}
    config = RunConfig(
        experiment=a.out.name, results_root=str(a.out.parent), model=a.control or "benchmarks.unseen:SideBySide",
        variant=a.trial, data_root=a.data, category=a.category, seed=a.seed, image_size=a.size, budget=a.budget,
        threads=1, device="cpu", precision="bf16", options=a.options | several, embedded_test=30,
    )  # fmt: skip
    run = start_run(config)
    weights = config.folder / "all.safetensors"
    if weights.is_file():
        run.model.load_state_dict(load_file(weights))
    else:
        train_run(run)
        save_file({k: v.contiguous().clone() for k, v in run.model.state_dict().items()}, weights)
    settings = {"trial": a.trial, "category": a.category, "options": json.dumps(a.options), "budget": a.budget,
                "size": a.size, "seed": a.seed}  # fmt: skip
    rows = [settings | row for row in relit_scores(run, run.model, a.lights)]
    file = a.out / "unseen.csv"
    pd.DataFrame(rows).round(4).to_csv(file, mode="a", header=not file.exists(), index=False)


if __name__ == "__main__":
    main()
