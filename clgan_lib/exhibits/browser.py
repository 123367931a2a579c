"""The test images of an experiment with what every model makes of them, small, for the browser in its report."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clgan_lib.exhibits.examples import has_maps
from clgan_lib.exhibits.run_table import credit, display, read_scores, select
from clgan_lib.runs.evaluation import dual_masks
from clgan_lib.runs.maps import map_names, read_maps

SIDE = 128  # pixels of a thumbnail
_MOST = 1600  # predictions in one page; where there are more, test images are left out at equal steps
_WEBP, _JPEG = [cv2.IMWRITE_WEBP_QUALITY, 45], [cv2.IMWRITE_JPEG_QUALITY, 65]


def collect_images(root: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """The content of the browser: by category, the images, and by model its predictions, of the lowest seed's runs.

    Maps are stored as 8-bit levels, ``255 * sqrt(score / top)``, `top` being the category's largest score of that model;
    ``level`` is that of the calibrated threshold. Masks are of half the area or more. F1 is that of ``scores.csv``.

    Args:
        root: the folder that holds experiments.
        frame: the tidy rows of `run_table.collect`.

    Returns:
        Plain values for JSON, images as data URIs; empty where no run has its maps.
    """
    runs = select(frame)
    runs = runs[runs["seed"] == runs["seed"].min()]
    records = [run for run in runs.to_dict("records") if has_maps(root, run)]
    if not records:
        return {}
    scores = read_scores(root, runs)
    rows = scores.groupby(["model", "category", "postprocess"]) if len(scores) else ()
    f1 = {key: part.set_index("name")["F1"].to_dict() for key, part in rows}
    most = max(1, _MOST // len(records))

    def collect(category: object) -> dict[str, Any]:
        """The part of one category; OpenCV and zlib leave other threads room."""
        part: dict[str, Any] = {"images": {}, "models": {}}
        for run in (run for run in records if run["category"] == category):
            own = {
                post: f1.get((run["model"], category, post), {}) for post in ("dual_threshold", "calibrated", "native")
            }
            part["credit"] = credit([str(run["data"])])
            part["models"][display(str(run["model"]))] = _run(root / str(run["folder"]), run, own, most, part["images"])
        return part

    categories = list(dict.fromkeys(str(run["category"]) for run in records))
    with ThreadPoolExecutor() as pool:
        return dict(zip(categories, pool.map(collect, categories), strict=True))


def _run(folder: Path, run: dict[Any, Any], f1: dict[str, dict[Any, float]], most: int, images: dict) -> dict:
    """The predictions of one run; adds what they are of to `images`, where it is not there yet."""
    names = {"names", "defects", "images", "masks", "scores"}
    maps = read_maps(folder, [*names, *{"reconstructions", "native", "dual_threshold"} & set(map_names(folder))])
    count = len(maps["names"])
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    maps = {name: array[chosen] for name, array in maps.items()}
    if "reconstructions" in maps:
        maps["dual_threshold"] = dual_masks(maps["images"], maps["reconstructions"], run["k"])
    top = max(float(maps["scores"].max()), 0.0) or 1.0
    level = 255 * np.sqrt(max(run["threshold"], 0) / top) if pd.notna(run["threshold"]) else 127.0
    predicted = {}
    for i, name in enumerate(map(str, maps["names"])):
        if name not in images:
            truth = _mask(maps["masks"][i])
            images[name] = {"defect": str(maps["defects"][i]), "image": _colour(maps["images"][i]), "truth": truth}
        predicted[name] = {
            "reconstruction": _colour(maps["reconstructions"][i]) if "reconstructions" in maps else "",
            "map": _uri(".jpg", 255 * np.sqrt(np.maximum(_small(maps["scores"][i]), 0) / top), _JPEG),
            "score": float(maps["scores"][i].max()),
            "masks": {post: _mask(maps[post][i]) for post in ("dual_threshold", "native") if post in maps},
            "F1": {post: round(values[name], 1) for post, values in f1.items() if name in values},
        }
    return {"level": round(float(level), 2), "images": predicted}


def _small(image: NDArray) -> NDArray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _colour(image: NDArray[np.uint8]) -> str:
    return _uri(".webp", _small(image)[..., ::-1], _WEBP)


def _mask(mask: NDArray[np.bool_]) -> str:
    return _uri(".png", 255 * (_small(mask.astype(np.float32)) >= 0.5), [cv2.IMWRITE_PNG_BILEVEL, 1])


def _uri(suffix: str, image: NDArray, settings: list[int]) -> str:
    """An image, levels 0 to 255, RGB as OpenCV has it, as a data URI."""
    data = cv2.imencode(suffix, image.round().astype(np.uint8), settings)[1]
    return f"data:image/{suffix[1:].replace('jpg', 'jpeg')};base64,{base64.b64encode(data.tobytes()).decode()}"
