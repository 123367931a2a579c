"""A trained model on a folder of images that nobody has labelled: masks, overlays and a table of scores.

    python -m clgan_lib.interop.inspection RUN IMAGES OUT

RUN is a run folder, or its ``weights.safetensors`` alone: settings and thresholds are in it. OUT gets ``masks/`` and
``overlays/``, one PNG for each image at its own size, upright; ``scores.csv``, a row for each image; and
``inspection.json``, which says what was done and by which rule. An image is called defective if the largest score in it
exceeds what a good one should: 5 % of good images do, by a Gumbel distribution fitted to the largest scores of the good
images that were kept from training. Of fewer than three no fit can be made, and their highest score is taken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from clgan_lib.calibration import IMAGE_RATE, image_maxima
from clgan_lib.data import SUFFIXES, read_image, resize
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs.evaluation import SIZE, Predictions, predict
from clgan_lib.runs.folder import first_line, write_json, writing
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record
from clgan_lib.runs.weights import Card, read_card, read_model
from clgan_lib.training import pick_device

Detector = Literal["auto", "calibrated", "dual_threshold", "native"]
OWN = {"masks", "overlays", "scores.csv", "inspection.json"}  # all that an inspection writes
COLUMNS = ["name", "verdict", "image_score", "marked_percent", "mask", "overlay", "problem"]
HEAT = (213, 94, 0)
LINES = ((0, 0, 0), (240, 228, 66))  # a contour's border and core: seen on any product


@dataclass(frozen=True)
class Inspector:
    """A trained model with all that a decision needs.

    Attributes:
        model: on the device it computes on.
        card: what came with its weights.
        image_threshold: an image with a score above is called defective.
        rule: where `image_threshold` is from, in words.
    """

    model: ReconstructionModel
    card: Card
    image_threshold: float
    rule: str

    @property
    def threshold(self) -> float:
        """Of the masks, on the map: the model's own where it has one, as the restoring variants do; else the calibrated one.

        The calibrated one lets 1 % of good pixels pass whatever the model: with it a good one marks that much of every good
        image, and a halo around a defect.
        """
        own = self.model.map_threshold()
        return self.card.threshold if own is None else own

    def inspect(self, image: Image.Image, *, native: bool = False) -> Predictions:
        """Predictions for one RGB image of any size, brought to 256x256 as in training."""
        pixels = torch.from_numpy(resize(image, SIZE).copy()).permute(2, 0, 1)[None]
        return predict(self.model, pixels, native=native)


def load(run: str | Path, device: str = "auto") -> Inspector:
    """A trained model from its run folder, or from its weights file alone.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file that is damaged, of another version, or too old to be used without its folder.
    """
    path = Path(run) / "weights.safetensors" if Path(run).is_dir() else Path(run)
    card = read_card(path) or _card_of_folder(path.parent)
    model = read_model(path, card.config).to(pick_device(device))
    if len(card.maxima) < 3:
        return Inspector(model, card, max(card.maxima), f"the highest score in {len(card.maxima)} held-out good images")
    level = image_maxima(np.array(card.maxima)[:, None, None])
    rule = f"exceeded by {IMAGE_RATE:.0%} of good images, by a Gumbel fit to {len(card.maxima)} held-out ones"
    return Inspector(model, card, level, rule)


def _card_of_folder(folder: Path) -> Card:
    """The card of weights that were written before they had one, from the files beside them."""
    record, maxima = read_record(folder), read_maps(folder, ["holdout"])["holdout"].max((1, 2))
    threshold = record.thresholds.calibrated
    if threshold is None:
        raise ValueError(f"{folder}: no image was held out, so there is no threshold; inspect with another run")
    return Card(record.run_config(), threshold, tuple(maxima.tolist()), str(record.env["commit"]))


def find_images(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The images in a folder and all folders under it, in order, and the files that are no images; hidden ones are neither.

    Raises:
        FileNotFoundError: if it is no folder or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; name the one that holds the images")
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    files = [path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise FileNotFoundError(f"{folder} holds no image; expected files that end in {', '.join(sorted(SUFFIXES))}")
    return images, [path for path in files if path.suffix.lower() not in SUFFIXES]


def inspect_folder(
    run: str | Path | Inspector, images: str | Path, out: str | Path, *, detector: Detector = "auto"
) -> pd.DataFrame:
    """Inspect every image of a folder and write what was found; see the top of the file.

    What cannot be read is named in the table, and the rest is inspected. The results appear all at once, at the end, and
    take the place of an earlier inspection's in the same folder.

    Args:
        run: run folder, weights file, or what `load` returned.
        images: folder; those under it count, too.
        out: folder to write.
        detector: of the masks: ``"auto"``, one threshold on the map, `Inspector.threshold`; ``"calibrated"``, the one that
            lets 1 % of good pixels pass (`RunConfig.quantile`); ``"dual_threshold"``, the paper's; ``"native"``, the one of
            the method's paper.

    Returns:
        The rows of ``scores.csv``: name, verdict (good, defective, unreadable), image_score, marked_percent (of its pixels),
        mask and overlay (paths in `out`), problem.

    Raises:
        FileNotFoundError: if there is no image.
        FileExistsError: if `out` holds other files.
        ValueError: if the model has no such detector, or from `load`.
        OSError: if `out` cannot be written.
    """
    images, out = Path(images), Path(out)
    found, others = find_images(images)
    if out.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"{out} lies in {images}: its masks would be taken for images; choose a folder outside")
    inspector = run if isinstance(run, Inspector) else load(run)
    if detector not in get_args(Detector) or (detector == "native" and not inspector.model.has_native):
        raise ValueError(
            f"detector: {inspector.card.config.model} has no {detector!r}; use 'auto', 'calibrated' or 'dual_threshold'"
        )
    with _filling(out) as part:
        taken: set[str] = set()
        rows = []
        for path in tqdm(found, desc="inspecting", unit="image", file=sys.stdout):
            name = path.relative_to(images).as_posix()
            rows.append({"name": name, **_inspect_file(inspector, path, part, _free_name(name, taken), detector)})
        table = pd.DataFrame(rows, columns=COLUMNS)
        table.to_csv(part / "scores.csv", index=False)
        left = [path.relative_to(images).as_posix() for path in others]
        write_json(part / "inspection.json", _summary(inspector, detector, table, left))
    return table


def _inspect_file(inspector: Inspector, path: Path, out: Path, name: str, detector: Detector) -> dict[str, Any]:
    """Inspect one file and write its mask and overlay; its row of the table."""
    try:
        image = read_image(path)
    except Exception as error:  # whatever a damaged file provokes in a decoder
        return {"verdict": "unreadable", "problem": first_line(error).replace(str(path), path.name)}
    answer = inspector.inspect(image, native=detector == "native")
    threshold = _threshold(inspector, detector)
    masks = answer.masks(threshold, inspector.card.config.k)
    mask = masks["calibrated" if detector == "auto" else detector][0]
    # At the image's own size; a corner of a pixel at 256 is no corner of the defect.
    own = cv2.resize(mask.astype(np.float32), image.size, interpolation=cv2.INTER_LINEAR) >= 0.5
    pictures = {"masks": own.astype(np.uint8) * 255, "overlays": overlay(image, answer.scores[0], own, threshold)}
    for kind, pixels in pictures.items():
        (out / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(out / kind / name, compress_level=3)  # a third of the time, hardly larger
    score = float(answer.scores.max())
    verdict = "defective" if score > inspector.image_threshold else "good"
    places = {"mask": f"masks/{name}", "overlay": f"overlays/{name}"}
    return {"verdict": verdict, "image_score": score, "marked_percent": 100 * float(own.mean()), **places}


def _threshold(inspector: Inspector, detector: Detector) -> float:
    """On the map: of the masks, and where they are made otherwise, of the overlays' red."""
    return inspector.threshold if detector == "auto" else inspector.card.threshold


def overlay(
    image: Image.Image, scores: NDArray[np.float32], mask: NDArray[np.bool_], threshold: float
) -> NDArray[np.uint8]:
    """The image reddened where scores are high, and the mask's border; uint8 ``(H, W, 3)``.

    Red begins at half the threshold and is full at twice the threshold, in every image alike.

    Args:
        image: RGB, H x W.
        scores: its map, of any size.
        mask: bool ``(H, W)``.
        threshold: on the map.
    """
    picture = np.asarray(image, np.float32)
    large = cv2.resize(scores, image.size, interpolation=cv2.INTER_LINEAR)
    weight = 0.55 * np.clip((large / max(threshold, 1e-9) - 0.5) / 1.5, 0, 1)[..., None]
    drawn = np.ascontiguousarray(((1 - weight) * picture + weight * np.asarray(HEAT)).round().astype(np.uint8))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thin = max(1, round(min(image.size) / 200))
    for colour, width in zip(LINES, (2 * thin + 1, thin), strict=True):
        cv2.drawContours(drawn, contours, -1, colour, width, cv2.LINE_AA)
    return drawn


def _free_name(name: str, taken: set[str]) -> str:
    """The name of an image's PNG: its own, with ``.png`` added where it is of another kind or the name is taken."""
    while not name.lower().endswith(".png") or name.lower() in taken:  # some disks do not tell A from a
        name += ".png"
    taken.add(name.lower())
    return name


def _summary(inspector: Inspector, detector: Detector, table: pd.DataFrame, left: list[str]) -> dict[str, Any]:
    card, verdicts = inspector.card, table["verdict"].value_counts()
    counts = {kind: int(verdicts.get(kind, 0)) for kind in ("good", "defective", "unreadable")}
    return {
        "model": card.config.model, "category": card.config.category, "commit": card.commit, "detector": detector,
        "threshold": _threshold(inspector, detector), "quantile": card.config.quantile, "k": card.config.k,
        "image_threshold": inspector.image_threshold, "image_rule": inspector.rule, **counts, "no_images": left,
    }  # fmt: skip


@contextmanager
def _filling(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write to; it takes the place of `out` once all is in it.

    Raises:
        FileExistsError: if `out` holds what no inspection wrote.
        OSError: naming `out`, if it cannot be written.
    """
    out = out.resolve()  # through a link, what it leads to is replaced
    there = {path.name for path in out.iterdir()} if out.is_dir() else {out.name} if out.exists() else set()
    if there and not (there <= OWN and "inspection.json" in there):
        raise FileExistsError(
            f"{out} holds {sorted(there - OWN or there)[0]!r}, which no inspection wrote; choose another folder"
        )
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    with writing(out.parent, "free space, or choose another folder"):
        try:
            part.mkdir(parents=True)
            yield part
            shutil.rmtree(out, ignore_errors=True)
            part.replace(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where a file could not be read, or nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m clgan_lib.interop.inspection",
        description="Masks, overlays and scores of every image in a folder.",
    )
    parser.add_argument("run", help="run folder or weights.safetensors")
    parser.add_argument("images", help="folder of images")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--detector", choices=get_args(Detector), default="auto", help="of the masks")
    given = parser.parse_args(arguments)
    try:
        table = inspect_folder(given.run, given.images, given.out, detector=given.detector)
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    unreadable = table[table["verdict"] == "unreadable"]
    for name, problem in zip(unreadable["name"], unreadable["problem"], strict=True):
        print(f"{name}: {problem}", file=sys.stderr)
    print(f"{len(table)} images, {(table['verdict'] == 'defective').sum()} defective: {Path(given.out) / 'scores.csv'}")
    return int(len(unreadable) > 0)


if __name__ == "__main__":
    sys.exit(main())
