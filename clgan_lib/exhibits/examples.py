"""The images that a figure shows, from the maps of finished runs.

Which images are shown is a rule, not a choice: see `examples`.
"""

import warnings
from collections.abc import Mapping, Sequence
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
    results_root: str | Path, frame: pd.DataFrame, *, reconstructed: bool = False, every_seed: bool = False
) -> list[dict[Any, Any]]:
    """Of each model and category the finished run that kept its maps, the lowest seed's: rows of `run_table.select`.

    With `reconstructed`, only runs with reconstructions, which maps of another program lack. With `every_seed`, all of them.
    """
    root = Path(results_root)
    runs = [run for run in select(frame).to_dict("records") if has_maps(root, run)]
    runs = [run for run in runs if not reconstructed or "reconstructions" in map_names(root / run["folder"])]
    first = {(run["model"], run["category"]): run for run in reversed(runs)}  # seeds come in order
    return runs if every_seed else [run for run in runs if run is first[run["model"], run["category"]]]


def reconstructions_of(results_root: str | Path, frame: pd.DataFrame, model: str) -> list[dict[Any, Any]]:
    """`runs_with_maps` of one model, with reconstructions.

    Raises:
        ValueError: if there is none.
    """
    mine = frame[frame["model"] == model]
    if runs := runs_with_maps(results_root, mine, reconstructed=True):
        return runs
    if runs_with_maps(results_root, mine):
        raise ValueError(f"model: the maps of {model!r} have no reconstructions, so the paper's k cannot be varied")
    finished = ", ".join(frame.loc[frame["finished"].astype(bool), "model"].unique()) or "none"
    raise ValueError(f"model: no finished run of {model!r} has maps.npz; models with finished runs: {finished}")


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


def examples(results_root: str | Path, frame: pd.DataFrame) -> list[Example]:
    """One image per category with maps, by rule: the defective one of median F1 under the dual threshold, first seed.

    The F1 is CLGAN's; where that has no maps, the next model's in the order of the tables. `frame` is from `collect`.
    """
    root, runs = Path(results_root), select(frame)
    runs = runs[runs["seed"] == runs["seed"].min()]
    scores = read_scores(root, runs).query("postprocess == 'dual_threshold'").sort_values(["F1", "name"])
    chosen = []
    for category, part in runs.groupby("category"):
        records = part.to_dict("records")
        for run in sorted(records, key=lambda run: run["model"] != "clgan"):
            names = scores.loc[(scores["category"] == category) & (scores["model"] == run["model"]), "name"]
            if has_maps(root, run) and len(names):
                median = str(names.iloc[(len(names) - 1) // 2])  # the lower one of two
                chosen.append(_example(root, run, records, median))
                break
    return chosen


def scored_maps(folder: Path, run: Mapping[Any, Any], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Maps of a run on the images of the defect types that its settings score, and on the good ones."""
    maps = read_maps(folder, [*names, "defects"])
    kept = ~np.isin(maps["defects"], list(run["left_out"]))
    return {name: array if name == "holdout" else array[kept] for name, array in maps.items()}


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


def _example(root: Path, first: dict[Any, Any], runs: list[dict[Any, Any]], name: str) -> Example:
    """The image `name` as the run `first` was shown it, with the reconstruction and the mask of each of `runs`."""
    maps = read_maps(root / first["folder"], ["names", "images", "masks"])
    index = list(maps["names"]).index(name)
    shown = {run["model"]: _prediction(root, run, name) for run in runs}
    which = (first["data"], first["category"], name, int(first["seed"]), float(first["k"]), first["model"])
    reconstructions, masks = ({model: both[i] for model, both in shown.items()} for i in (0, 1))
    return Example(*which, maps["images"][index], maps["masks"][index], reconstructions, masks)


def _prediction(root: Path, run: dict[Any, Any], name: str) -> tuple[NDArray | None, NDArray | None]:
    """One run's reconstruction and mask of one image; None for what this method does not give."""
    if not has_maps(root, run):
        return None, None
    kept = {"reconstructions", "dual_threshold"} & set(map_names(root / run["folder"]))
    maps = read_maps(root / run["folder"], ["names", "images", *kept])
    if name not in maps["names"]:  # maps from elsewhere may lack an image
        return None, None
    index = list(maps["names"]).index(name)
    if "reconstructions" not in maps:
        return None, maps["dual_threshold"][index]
    reconstruction = maps["reconstructions"][index]
    return reconstruction, detect(maps["images"][index], reconstruction, run["k"]).mask
