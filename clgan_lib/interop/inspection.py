"""Inspection: a trained model applied to a folder of images without labels. `clgan inspect RUN IMAGES OUT`

OUT gets four things:

* ``masks/`` and ``overlays/``, one PNG per image, at its own size and upright;
* ``scores.csv``, a row per image;
* ``inspection.json``: model, thresholds and how they were chosen.

An image is called defective if the largest score in it exceeds the image threshold, which 5 % of good images exceed: the
95 % quantile of a Gumbel distribution, fitted to the largest scores of the held-out good images. Fewer than three cannot be
fitted; then the threshold is their highest score.
"""

import errno
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from tqdm.auto import tqdm

from clgan_lib.calibration import IMAGE_RATE, image_threshold
from clgan_lib.data import read_image, resize
from clgan_lib.image_files import shown
from clgan_lib.interop.folders import filling, find_images, free_name, say_left_out
from clgan_lib.interop.readiness import FILE, Readiness
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs.evaluation import SIZE, Predictions, predict
from clgan_lib.runs.folder import first_line, write_json
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record
from clgan_lib.runs.weights import Card, read_card, read_model
from clgan_lib.training import pick_device

Detector = Literal["auto", "calibrated", "dual_threshold", "native"]
_UNNAMEABLE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # of a name that this disk does not take
_COLUMNS = ["name", "verdict", "image_score", "marked_percent", "mask", "overlay", "problem"]
_RED = (213, 94, 0)
_CONTOUR = ((0, 0, 0), (240, 228, 66))  # black and yellow lines, visible on any product


@dataclass(frozen=True)
class Inspector:
    """A trained model with its thresholds.

    Attributes:
        model: on the device that it computes on.
        card: settings, calibrated threshold and provenance, from the weights file.
        image_threshold: an image whose largest score is higher is called defective.
        rule: how `image_threshold` was chosen, in words.
        readiness: whether the model is fit for use, where that was measured.
    """

    model: ReconstructionModel
    card: Card
    image_threshold: float
    rule: str
    readiness: Readiness | None = None

    @property
    def threshold(self) -> float:
        """Of the masks, on the anomaly map: the model's own, as the restoring variants have; else the calibrated one.

        With the calibrated one 1 % of good pixels are false positives, whatever the model.
        """
        own = self.model.map_threshold()
        return self.card.threshold if own is None else own

    def inspect(self, image: Image.Image, *, native: bool = False) -> Predictions:
        """The model's predictions for one RGB image of any size, resized to 256x256 as in training."""
        pixels = torch.from_numpy(resize(image, SIZE).copy()).permute(2, 0, 1)[None]
        return predict(self.model, pixels, native=native)


def load(run: str | Path, device: str = "auto", *, recalibrated: bool = True) -> Inspector:
    """A trained model from its run folder or weights file, `recalibrated` if `clgan calibrate` left thresholds beside it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file that is damaged or of another version.
    """
    path = Path(run) / "weights.safetensors" if Path(run).is_dir() else Path(run)
    card = read_card(path) or _card_of_folder(path.parent)
    model = read_model(path, card.config)
    card, readiness = _read_beside(path, model, card, recalibrated=recalibrated)
    rule = f"exceeded by {IMAGE_RATE:.0%} of good images, by a Gumbel fit to {len(card.maxima)} held-out ones"
    rule = rule if len(card.maxima) > 2 else f"the highest score in {len(card.maxima)} held-out good images"
    return Inspector(model.to(pick_device(device)), card, image_threshold(card.maxima), rule, readiness)


def calibration_file(run: str | Path) -> Path:
    """Where `clgan calibrate` leaves its thresholds: beside the weights of a run folder, or a weights file."""
    return (Path(run) / "weights" if Path(run).is_dir() else Path(run)).with_suffix(".calibration.json")


def _read_beside(
    path: Path, model: ReconstructionModel, card: Card, *, recalibrated: bool
) -> tuple[Card, Readiness | None]:
    """Readiness, and the card with today's thresholds, from the files beside the weights; the model's own are set in it."""
    file, readiness = path.with_name(FILE), None
    try:
        if file.is_file():
            readiness = TypeAdapter(Readiness).validate_json(file.read_bytes())
            readiness = readiness if readiness.threshold == card.threshold else None  # of other weights
        file = calibration_file(path)
        if recalibrated and file.is_file():
            content = json.loads(file.read_bytes())
            model.load_state_dict(
                {name: torch.tensor(value) for name, value in content["buffers"].items()}, strict=False
            )
            if content["trained"] != list(card.maxima):
                raise ValueError("it belongs to other weights")
            card = replace(card, threshold=content["threshold"], maxima=tuple(content["maxima"]))
            readiness = TypeAdapter(Readiness).validate_python(content["readiness"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged or of another version ({first_line(error)}); remove it") from None
    return card, readiness


def _card_of_folder(folder: Path) -> Card:
    """The card of an older weights file, which holds none, from the files beside it."""
    record, maxima = read_record(folder), read_maps(folder, ["holdout"])["holdout"].max((1, 2))
    threshold = record.thresholds.calibrated
    if threshold is None:
        raise ValueError(f"{folder}: no image was held out, so there is no threshold; inspect with another run")
    return Card(record.run_config(), threshold, tuple(maxima.tolist()), str(record.env["commit"]))


def inspect_folder(
    run: str | Path | Inspector, images: str | Path, out: str | Path, *, detector: Detector = "auto"
) -> pd.DataFrame:
    """Inspect every image of a folder and write the files that the top of this module lists.

    A file that cannot be read is named in the table, and the rest is inspected. The results appear at once, at the end, and
    replace those of an earlier inspection in the same folder.

    Args:
        run: run folder, weights file, or an inspector from `load`.
        images: folder, searched with all folders under it.
        out: folder to write.
        detector: of the masks: ``"auto"``, `Inspector.threshold` on the map; ``"calibrated"``, a threshold that 1 % of good
            pixels exceed (`RunConfig.quantile`); ``"dual_threshold"``, the paper's; ``"native"``, the method's.

    Returns:
        The rows of ``scores.csv``: name, verdict (good, defective, unreadable), image_score, marked_percent of the pixels,
        mask and overlay (paths in `out`), problem.

    Raises:
        FileNotFoundError: if there is no image.
        FileExistsError: if `out` holds other files.
        ValueError: if the model has no such detector, or from `load`.
        OSError: if `out` cannot be written.
    """
    images, out = Path(images), Path(out)
    paths, others = find_images(images)
    if {out.resolve(), *out.resolve().parents} & {folder.resolve() for folder in {images, *(p.parent for p in paths)}}:
        raise ValueError(f"{out} lies in {images}: its masks would be taken for images; choose a folder outside")
    inspector = run if isinstance(run, Inspector) else load(run)
    if detector not in get_args(Detector) or (detector == "native" and not inspector.model.has_native):
        raise ValueError(
            f"detector: {inspector.card.config.model} has no {detector!r}; use 'auto', 'calibrated' or 'dual_threshold'"
        )
    say_left_out(others)
    with filling(out) as part:
        taken: set[str] = set()
        rows = []
        for path in tqdm(paths, desc="inspecting", unit="image", file=sys.stdout):
            name = shown(path.relative_to(images).as_posix())
            rows.append({"name": name, **_inspect_file(inspector, path, part, free_name(name, taken), detector)})
        table = pd.DataFrame(rows, columns=_COLUMNS)
        table.to_csv(part / "scores.csv", index=False)
        not_images = [shown(path.relative_to(images).as_posix()) for path in others]
        write_json(part / "inspection.json", _summary(inspector, detector, table, not_images))
    return table


def _inspect_file(inspector: Inspector, path: Path, out: Path, name: str, detector: Detector) -> dict[str, Any]:
    """Inspect one file, write its mask and overlay, and return its row of the table."""
    try:
        image = read_image(path, inspector.card.config.bit_depth)
    except Exception as error:  # a decoder may raise anything on a damaged file
        return {"verdict": "unreadable", "problem": shown(first_line(error).replace(str(path), path.name))}
    prediction = inspector.inspect(image, native=detector == "native")
    threshold = _threshold(inspector, detector)
    masks = prediction.masks(threshold, inspector.card.config.k)
    mask = masks["calibrated" if detector == "auto" else detector][0].astype(np.float32)
    own = cv2.resize(mask, image.size, interpolation=cv2.INTER_LINEAR) >= 0.5  # linear: no steps when enlarged
    outputs = {"masks": own.astype(np.uint8) * 255, "overlays": _overlay(image, prediction.scores[0], own, threshold)}
    score = float(prediction.scores.max())
    verdict = "defective" if score > inspector.image_threshold else "good"
    written = {"mask": f"masks/{name}", "overlay": f"overlays/{name}"}
    try:
        for folder, pixels in outputs.items():
            (out / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(out / folder / name, compress_level=3)  # a third of the time, hardly larger
    except OSError as error:
        if error.errno not in _UNNAMEABLE:
            raise
        why = f"its mask and overlay cannot be written ({error.strerror})"
        written = {"problem": f"{why}; give it a shorter, plainer name"}
    return {"verdict": verdict, "image_score": score, "marked_percent": 100 * float(own.mean()), **written}


def _threshold(inspector: Inspector, detector: Detector) -> float:
    """Threshold on the map, of the masks; for a detector with none, of the red of the overlays."""
    return inspector.threshold if detector == "auto" else inspector.card.threshold


def _overlay(
    image: Image.Image, scores: NDArray[np.float32], mask: NDArray[np.bool_], threshold: float
) -> NDArray[np.uint8]:
    """The image, redder where scores are higher, with the contour of the mask; uint8 ``(H, W, 3)``.

    Args:
        scores: its anomaly map, of any size.
        threshold: on the map; red begins at half of it and is full at twice of it.
    """
    large = cv2.resize(scores, image.size, interpolation=cv2.INTER_LINEAR)
    weight = 0.55 * np.clip((large / max(threshold, 1e-9) - 0.5) / 1.5, 0, 1)[..., None]
    blended = (1 - weight) * np.asarray(image, np.float32) + weight * np.asarray(_RED)
    pixels = np.ascontiguousarray(blended.round().astype(np.uint8))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thin = max(1, round(min(image.size) / 200))
    for colour, width in zip(_CONTOUR, (2 * thin + 1, thin), strict=True):
        cv2.drawContours(pixels, contours, -1, colour, width, cv2.LINE_AA)
    return pixels


def _summary(inspector: Inspector, detector: Detector, table: pd.DataFrame, not_images: list[str]) -> dict[str, Any]:
    card, verdicts = inspector.card, table["verdict"].value_counts()
    counts = {verdict: int(verdicts.get(verdict, 0)) for verdict in ("good", "defective", "unreadable")}
    judged = {"fit": judgement.fit, "readiness": str(judgement)} if (judgement := inspector.readiness) else {}
    return {
        "model": card.config.model, "category": card.config.category, "commit": card.commit, "detector": detector,
        "threshold": _threshold(inspector, detector), "quantile": card.config.quantile, "k": card.config.k,
        "image_threshold": inspector.image_threshold, "image_rule": inspector.rule, **judged, **counts,
        "no_images": not_images,
    }  # fmt: skip
