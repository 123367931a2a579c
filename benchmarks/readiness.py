"""How the readiness check agrees with true defects: models of the embedded products after short and longer trainings.

    python -m benchmarks.readiness [--budgets 400 1200 2400]

Each row is one CLGAN-RC of width 8 at 64 pixels. The check sees held-out good images and synthetic anomalies. The last two
columns are measured on test images that it does not see. An embedded defect counts as found by the same rule: the mask
touches it and its image is called defective. The limits in `clgan_lib.interop.readiness` were chosen on such models.
"""

import argparse
import tempfile

import numpy as np

from benchmarks import common
from benchmarks.recalibration import SMALL
from clgan_lib.data import load_category
from clgan_lib.interop.inspection import load
from clgan_lib.interop.learning import learn_folder
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, anomaly_maps
from clgan_lib.runs.execution import data_root

HEADER = ["product", "images shown", "finds of synthetic anomalies, %", "marks of held-out good pixels, %", "fit",
          "finds of embedded defects, %", "marks of good test pixels, %"]  # fmt: skip


def measure(config: RunConfig, budget: float) -> list[object]:
    """One row."""
    root = data_root(config)
    with tempfile.TemporaryDirectory() as place:
        settings = {"image_size": 64, "budget": budget, "options": SMALL, "symmetry": config.resolved_symmetry}
        good = root / config.category / "train/good"
        inspector = load(learn_folder(good, category=config.category, results_root=place, **settings))
    checked = inspector.readiness
    assert checked is not None
    category = load_category(root, config.category, SIZE)
    maps, truths = anomaly_maps(inspector.model, category.test), category.masks.numpy()
    defective = truths.any((1, 2))
    found = ((maps > inspector.threshold) & truths).any((1, 2)) & (maps.max((1, 2)) > inspector.image_threshold)
    marked = 100 * float((maps[~defective] > inspector.threshold).mean())
    return [config.category, f"{budget:g}", str(checked.found), str(checked.marked), "yes" if checked.fit else "no",
            f"{100 * np.mean(found[defective]):.0f}", f"{marked:.1f}"]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = common.parser(__doc__, repeats=1)
    parser.add_argument("--categories", nargs="+", default=["bottle", "hazelnut", "metal_nut", "tile"])
    parser.add_argument("--budgets", nargs="+", type=float, default=[400, 1200, 2400], help="training images shown")
    parser.add_argument("--train", type=int, default=150, help="good images, of which a seventh is held out")
    parser.add_argument("--test", type=int, default=60, help="defective test images")
    arguments = parser.parse_args()
    common.begin(arguments)
    counts = {"embedded_train": arguments.train, "embedded_test": arguments.test}
    configs = [RunConfig(category=name, **counts) for name in arguments.categories]
    common.table(HEADER, [measure(config, budget) for config in configs for budget in arguments.budgets])


if __name__ == "__main__":
    main()
