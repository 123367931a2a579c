"""The images that a figure shows, from the maps of finished runs.

Which images are shown is a rule, not a choice: see `examples`.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clgan_lib.detection import detect
from clgan_lib.exhibits.run_table import read_scores, select
from clgan_lib.runs.maps import map_names, read_maps


def runs_with_maps(
    results_root: str | Path, frame: pd.DataFrame, model: str, *, reconstructed: bool = False, every_seed: bool = False
) -> list[dict[Any, Any]]:
    """Per category the finished run of `model` that kept its maps, the lowest seed's: rows of `run_table.select`.

    With `reconstructed`, only runs with reconstructions, which maps of another program lack. With `every_seed`, all of them.

    Raises:
        ValueError: if there is none.
    """
    root, runs = Path(results_root), select(frame)
    runs = runs[runs["model"] == model].sort_values(["category", "seed"])
    there = [run for run in runs.to_dict("records") if has_maps(root, run)]
    if not there:
        finished = ", ".join(frame.loc[frame["finished"].astype(bool), "model"].unique()) or "none"
        raise ValueError(f"model: no finished run of {model!r} has maps.npz; models with finished runs: {finished}")
    there = [run for run in there if not reconstructed or "reconstructions" in map_names(root / run["folder"])]
    if not there:
        raise ValueError(f"model: the maps of {model!r} have no reconstructions, so the paper's k cannot be varied")
    return there if every_seed else pd.DataFrame(there).drop_duplicates("category").to_dict("records")


@dataclass(frozen=True)
class Example:
    """One test image and what every model makes of it; None for a model whose run or maps are missing."""

    data: str
    category: str
    name: str
    seed: int
    k: float  # of the paper's first threshold, in these runs
    reference: str  # the model by whose F1 it was chosen
    image: NDArray[np.uint8]  # (S, S, 3)
    truth: NDArray[np.bool_]  # (S, S)
    reconstructions: dict[str, NDArray[np.uint8] | None]  # (S, S, 3) by model
    masks: dict[str, NDArray[np.bool_] | None]  # (S, S) by model


def examples(
    results_root: str | Path, frame: pd.DataFrame, *, reference: str = "clgan", postprocess: str = "dual_threshold"
) -> list[Example]:
    """One image per category with maps, by rule: the defective one of median F1 under the dual threshold, first seed.

    Args:
        results_root: the folder that holds experiments.
        frame: from `collect`.
        reference: the model whose F1 counts; where it has no maps, that of the next in the order of the tables.
        postprocess: of the masks: ``"dual_threshold"``, ``"calibrated"`` or ``"native"``.
    """
    root = Path(results_root)
    runs = select(frame)
    runs = runs[runs["seed"] == runs["seed"].min()]
    scores = read_scores(root, runs)
    chosen = []
    for category, part in runs.groupby("category"):
        records = part.to_dict("records")
        for run in sorted(records, key=lambda run: run["model"] != reference):
            rows = scores[(scores["category"] == category) & (scores["model"] == run["model"])]
            if has_maps(root, run) and len(rows):
                names = rows[rows["postprocess"] == "dual_threshold"].sort_values(["F1", "name"])["name"]
                median = str(names.iloc[(len(names) - 1) // 2])  # the lower one of two
                chosen.append(_example(root, run, records, median, postprocess))
                break
    return chosen


def has_maps(root: Path, run: dict[Any, Any]) -> bool:
    """Whether a run is finished and has its maps here; damaged ones count as missing, with a warning."""
    folder = root / str(run["folder"])
    if not run["finished"] or not (folder / "maps.npz").is_file():
        return False
    try:
        map_names(folder)
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return False
    return True


def _example(root: Path, first: dict[Any, Any], runs: list[dict[Any, Any]], name: str, postprocess: str) -> Example:
    """The image `name` as the run `first` was shown it, with the reconstruction and the mask of each of `runs`."""
    maps = read_maps(root / first["folder"], ["names", "images", "masks"])
    index = list(maps["names"]).index(name)
    shown = {run["model"]: _prediction(root, run, name, postprocess) for run in runs}
    which = (first["data"], first["category"], name, int(first["seed"]), float(first["k"]), first["model"])
    reconstructions, masks = ({model: both[i] for model, both in shown.items()} for i in (0, 1))
    return Example(*which, maps["images"][index], maps["masks"][index], reconstructions, masks)


def _prediction(root: Path, run: dict[Any, Any], name: str, postprocess: str) -> tuple[NDArray | None, NDArray | None]:
    """One run's reconstruction and mask of one image; None for what this method does not give."""
    if not has_maps(root, run):
        return None, None
    there = set(map_names(root / run["folder"]))
    maps = read_maps(root / run["folder"], ["names", *there & {"images", "scores", "reconstructions", postprocess}])
    if name not in maps["names"]:  # maps from elsewhere may lack an image
        return None, None
    index = list(maps["names"]).index(name)
    reconstruction = maps["reconstructions"][index] if "reconstructions" in maps else None
    if postprocess in maps:
        return reconstruction, maps[postprocess][index]
    if postprocess == "dual_threshold" and reconstruction is not None:
        return reconstruction, detect(maps["images"][index], reconstruction, run["k"]).mask
    if postprocess == "calibrated" and pd.notna(run["threshold"]):
        return reconstruction, maps["scores"][index] > run["threshold"]
    return reconstruction, None  # this method has no detector of its own, or nothing to calibrate on
