"""What a model with some options reaches on the embedded data in a given training: how `config/quick.yaml` was chosen.

    python -m benchmarks.pilot --model clgan --options '{"width": 16, "batch_size": 4}' --budget 30 --unit seconds

Prints a table in Markdown, a row a category; --csv FILE also appends the rows, with where they come from. A run is that of
the suite, without its notebook and its folder. The metrics are those of the test images, so what is chosen here is
development; whether more training helps is judged by the residual on held-out good images, at each quarter of the training.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks import common
from clgan_lib.data import load_category, to_float
from clgan_lib.runs import evaluation
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import data_root, environment, fresh_model, hold_out
from clgan_lib.training import Budget, set_threads, train

EIGHT = ["bottle", "carpet", "grid", "hazelnut", "leather", "metal_nut", "tile", "wood"]
LEFT_OUT = {"metal_nut": ["flip"]}  # as in the config
SHOWN = ["category", "images", "cpu_s", "images_per_s", "F1_dual", "F1_native", "AUROC", "residual_outside",
         "residual_holdout"]  # fmt: skip
POSTPROCESS = {"F1_dual": "dual_threshold", "F1_calibrated": "calibrated", "F1_native": "native"}
QUARTERS = (25, 50, 75)  # rows of a history, which has 100


def pilot(config: RunConfig, pictures: Path | None = None) -> dict[str, Any]:
    """Train and evaluate one run in memory.

    Args:
        config: its settings.
        pictures: a file for test images above their reconstructions; None draws none.

    Returns:
        A row of the table: F1, AUROC and residuals in percent; NaN for the F1 of a native detector that is not there.
    """
    root = data_root(config)
    category = load_category(root, config.category, evaluation.SIZE)
    small = load_category(root, config.category, config.image_size).train
    held_out = hold_out(config, len(small))
    model, good, curve, rows = fresh_model(config), to_float(small[held_out]), [], []

    def look() -> None:
        curve.append(round(50 * float((model.reconstruct(good) - good).abs().mean()), 2))  # percent of [-1, 1]

    def watch(row: dict[str, float]) -> None:
        rows.append(row)
        if len(rows) in QUARTERS:
            look()

    budget, begin = Budget(config.budget, config.budget_unit), time.process_time()
    done = train(
        model, small[~held_out], budget=budget, seed=config.seed, symmetry=config.resolved_symmetry, on_log=watch
    )
    cpu = time.process_time() - begin  # on a busy machine the clock on the wall says little
    look()
    answers = evaluation.evaluate(model, category, category.train[held_out])
    found = evaluation.measure(answers, config.leave_out)
    if pictures:
        draw(answers, pictures)
    nothing = {"image": {"F1": float("nan")}}
    scores = {name: found["scores"].get(post, nothing)["image"]["F1"] for name, post in POSTPROCESS.items()}
    return {
        "category": config.category,
        "images": done.images,
        "train_s": done.seconds,
        "cpu_s": cpu,
        "images_per_s": done.images / max(cpu, 1e-9),
        **scores,
        "AUROC": 100 * found["ranking"]["AUROC"],
        "residual_inside": 100 * found["residual"]["inside"],
        "residual_outside": 100 * found["residual"]["outside"],
        "residual_holdout": " ".join(map(str, curve)),
    }


def draw(answers: evaluation.Evaluation, file: Path) -> None:
    """Ten test images, evenly chosen, above their reconstructions, at half their size."""
    chosen = np.linspace(0, len(answers.images) - 1, 10).astype(int)
    rows = [np.concatenate(list(images[chosen]), 1) for images in (answers.images, answers.reconstructions)]
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.concatenate(rows)[::2, ::2, ::-1])


def main() -> None:
    """Print the table, and append it to a file where one is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="clgan")
    parser.add_argument("--options", default="{}", type=json.loads, help="the model's, as JSON")
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--unit", default="seconds", choices=["images", "epochs", "seconds"])
    parser.add_argument("--categories", nargs="+", default=EIGHT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="a file to append the rows to")
    parser.add_argument("--pictures", type=Path, help="a folder for reconstructions")
    arguments = parser.parse_args()
    set_threads(1)
    device = torch.device("cpu")
    print(common.machine(device), flush=True)
    rows = []
    for category in arguments.categories:
        config = RunConfig(
            model=arguments.model, options=arguments.options, category=category, seed=arguments.seed,
            budget=arguments.budget, budget_unit=arguments.unit, leave_out=LEFT_OUT.get(category, []),
            embedded_test=30, threads=1, device="cpu",
        )  # fmt: skip
        file = arguments.pictures / f"{arguments.model}_{category}.png" if arguments.pictures else None
        rows.append(pilot(config, file))
        if arguments.csv:
            append(rows[-1], arguments, environment(device))
    means = {name: statistics.fmean(row[name] for row in rows) for name in SHOWN[1:-1]}
    common.table(
        SHOWN, [[row[name] for name in SHOWN] for row in [*rows, {"category": "mean", **means, SHOWN[-1]: ""}]]
    )


def append(row: dict[str, Any], arguments: argparse.Namespace, where: dict[str, Any]) -> None:
    """Add a row to a CSV, with settings, versions, device and commit."""
    settings = {"model": arguments.model, "options": json.dumps(arguments.options, sort_keys=True),
                "seed": arguments.seed, "budget": arguments.budget, "unit": arguments.unit}  # fmt: skip
    origin = {name: where[name] for name in ("torch", "device", "device_name", "threads", "commit", "dirty")}
    frame = pd.DataFrame([{**settings, **row, **origin}]).round(3)
    frame.to_csv(arguments.csv, mode="a", header=not arguments.csv.exists(), index=False)


if __name__ == "__main__":
    main()
