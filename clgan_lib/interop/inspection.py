"""Inspection: a trained model applied to a folder of images without labels. `clgan inspect RUN IMAGES OUT`

OUT gets six things:

* ``masks/`` and ``overlays/``, a PNG and a JPEG per image, at its own size and upright;
* ``maps/``, its anomaly map at 256x256 (NumPy), from which `clgan_lib.interop.results` moves thresholds afterwards;
* ``scores.csv``, a row per image;
* ``inspection.json``: model, thresholds and how they were chosen;
* ``gallery.html``: the overlays by score, with a threshold to move.

An image is called defective if the largest score in it exceeds the image threshold, which 5 % of good images exceed: the
95 % quantile of a Gumbel distribution, fitted to the largest scores of the held-out good images. Fewer than three cannot be
fitted; then the threshold is their highest score. With a rate of false alarms it is a split-conformal quantile instead.
"""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from clgan_lib.data import read_image, resize, to_float
from clgan_lib.image_files import shown
from clgan_lib.interop.folders import filling, find_images, free_name, say_left_out
from clgan_lib.interop.onnx_model import OnnxModel, read_onnx
from clgan_lib.interop.readiness import FILE, Readiness
from clgan_lib.interop.results import COLUMNS, Sort, finish, image_rule, map_file, progress, workers, write_pictures
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs import evaluation
from clgan_lib.runs.evaluation import SIZE, Predictions, full_precision, predict
from clgan_lib.runs.folder import first_line
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record
from clgan_lib.runs.weights import Card, read_card, read_model
from clgan_lib.training import pick_device

Detector = Literal["auto", "calibrated", "dual_threshold", "native"]
_CPU_BATCH, _GPU_BATCH = 4, 16  # images that a thread inspects together
_UNNAMEABLE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # of a name that this disk does not take


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
        return predict(self.model, _stack([image]), native=native)

    def maps(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """The anomaly maps of `inspect` alone, ``(N, 256, 256)``.

        Raises:
            ValueError: if one is not finite.
        """
        floats = to_float(_stack(images).to(self.model.device))
        small = evaluation.resize(floats, self.model.image_size, antialias=True)
        maps = evaluation.resize(self.model.anomaly_map(small).float()[:, None])[:, 0].cpu().numpy()
        if not np.isfinite(maps).all():
            raise ValueError(f"{type(self.model).__name__}: the anomaly map holds NaN or infinite values")
        return maps


def _stack(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of any size as uint8 ``(N, 3, 256, 256)``."""
    return torch.from_numpy(np.stack([resize(image, SIZE) for image in images])).permute(0, 3, 1, 2).contiguous()


def load(run: str | Path, device: str = "auto", *, recalibrated: bool = True, rate: float | None = None) -> Inspector:
    """A trained model from its run folder, weights or ONNX file.

    It is `recalibrated` if `clgan calibrate` left thresholds beside the weights. With a `rate` the threshold of an image is
    one that at most this share of good images exceeds.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file that is damaged or of another version.
    """
    path = Path(run) / "weights.safetensors" if Path(run).is_dir() else Path(run)
    if path.suffix == ".onnx":
        onnx, card = read_onnx(path)
        return Inspector(onnx, card, *image_rule(card.maxima, rate))
    card = read_card(path) or _card_of_folder(path.parent)
    model = read_model(path, card.config)
    card, readiness, own_rate = _read_beside(path, model, card, recalibrated=recalibrated)
    return Inspector(
        model.to(pick_device(device)), card, *image_rule(card.maxima, own_rate if rate is None else rate), readiness
    )


def use_symmetries(model: ReconstructionModel, count: int) -> None:
    """Let test-time augmentation use `count` of the product's symmetries; one that divides their number, evenly spread."""
    augmented: Any = model
    augmentations = getattr(model, "augmentations", [None])
    if count < 1 or len(augmentations) % count:
        raise ValueError(f"symmetries: the product has {len(augmentations)}; choose a divisor of that, not {count}")
    if len(augmentations) > 1:
        augmented.augmentations = augmentations[:: len(augmentations) // count]


def calibration_file(run: str | Path) -> Path:
    """Where `clgan calibrate` leaves its thresholds: beside the weights of a run folder, or a weights file."""
    return (Path(run) / "weights" if Path(run).is_dir() else Path(run)).with_suffix(".calibration.json")


def _read_beside(
    path: Path, model: ReconstructionModel, card: Card, *, recalibrated: bool
) -> tuple[Card, Readiness | None, float | None]:
    """The card with today's thresholds, readiness and rate, from the files beside the weights; the model's own are set."""
    file, readiness, rate = path.with_name(FILE), None, None
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
            rate = content.get("rate")
            if content.get("symmetries"):
                use_symmetries(model, content["symmetries"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged or of another version ({first_line(error)}); remove it") from None
    return card, readiness, rate


def _card_of_folder(folder: Path) -> Card:
    """The card of an older weights file, which holds none, from the files beside it."""
    record, maxima = read_record(folder), read_maps(folder, ["holdout"])["holdout"].max((1, 2))
    threshold = record.thresholds.calibrated
    if threshold is None:
        raise ValueError(f"{folder}: no image was held out, so there is no threshold; inspect with another run")
    return Card(record.run_config(), threshold, tuple(maxima.tolist()), str(record.env["commit"]))


def inspect_folder(
    run: str | Path | Inspector,
    images: str | Path,
    out: str | Path,
    *,
    detector: Detector = "auto",
    sort: Sort | None = None,
    bf16: bool = False,
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
        sort: also put the images into ``sorted/`` by verdict, as links or as copies.
        bf16: let PyTorch compute in bfloat16; faster on a GPU, and on a CPU with avx512_bf16 or amx_bf16.

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
    native, onnx = inspector.model.has_native, isinstance(inspector.model, OnnxModel)
    known = [name for name in get_args(Detector) if name != ("" if native else "native") and not (onnx and "_" in name)]
    if detector not in known:
        raise ValueError(f"detector: {inspector.card.config.model} has no {detector!r}; use one of {', '.join(known)}")
    say_left_out(others)
    names = [shown(path.relative_to(images).as_posix()) for path in paths]
    size = min(
        _CPU_BATCH if inspector.model.device.type == "cpu" else _GPU_BATCH, -(-len(paths) // torch.get_num_threads())
    )
    batches = [paths[i : i + size] for i in range(0, len(paths), size)]
    taken: set[str] = set()
    free = [free_name(name, taken) for name in names]
    with filling(out) as part, full_precision(), workers(len(batches)) as pool:
        inspect = partial(_inspect_files, inspector, part, detector, bf16)
        parts = pool.map(inspect, batches, [free[i : i + size] for i in range(0, len(paths), size)])
        rows = progress((row for rows in parts for row in rows), len(paths), "inspecting")
        table = pd.DataFrame([{"name": name, **row} for name, row in zip(names, rows, strict=True)], columns=COLUMNS)
        not_images = [shown(path.relative_to(images).as_posix()) for path in others]
        summary = _summary(inspector, detector, not_images)
        places = {"images": os.path.relpath(images.resolve(), out.resolve()), "sorted": sort}
        finish(part, out.resolve(), images, table, summary | places)
    return table


def _inspect_files(
    inspector: Inspector, out: Path, detector: Detector, bf16: bool, paths: list[Path], names: list[str]
) -> list[dict[str, Any]]:
    """Inspect some files, write what is kept of each, and return their rows of the table."""
    rows, images = [], dict[int, Image.Image]()
    for i, path in enumerate(paths):
        rows.append(dict[str, Any](verdict="unreadable"))
        try:
            images[i] = read_image(path, inspector.card.config.bit_depth)
        except Exception as error:  # a decoder may raise anything on a damaged file
            rows[i]["problem"] = shown(first_line(error).replace(str(path), path.name))
    if not images:
        return rows
    threshold = _threshold(inspector, detector)
    with torch.autocast(inspector.model.device.type, torch.bfloat16, enabled=bf16):
        if detector in ("auto", "calibrated"):
            maps, masks = inspector.maps([*images.values()]), None
        else:
            predictions = predict(inspector.model, _stack([*images.values()]), native=detector == "native")
            maps, masks = predictions.scores, predictions.masks(threshold, inspector.card.config.k)[detector]
    kept = maps.astype(np.float16 if 1e-3 < threshold < 1e3 else np.float32)  # half is 1/2000 of a score in this range
    masks = kept.astype(np.float32) > threshold if masks is None else masks
    for (i, image), scores, half, mask in zip(images.items(), maps, kept, masks, strict=True):
        score = float(scores.max())
        rows[i] = {"verdict": "defective" if score > inspector.image_threshold else "good", "image_score": score}
        try:
            rows[i] |= write_pictures(out, names[i], image, half, mask, threshold)
            file = out / map_file(rows[i]["mask"])
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, half)
        except OSError as error:
            if error.errno not in _UNNAMEABLE:
                raise
            why = f"its mask and overlay cannot be written ({error.strerror})"
            rows[i]["problem"] = f"{why}; give it a shorter, plainer name"
    return rows


def _threshold(inspector: Inspector, detector: Detector) -> float:
    """Threshold on the map, of the masks; for a detector with none, of the red of the overlays."""
    return inspector.threshold if detector == "auto" else inspector.card.threshold


def _summary(inspector: Inspector, detector: Detector, not_images: list[str]) -> dict[str, Any]:
    card = inspector.card
    judged = {"fit": judgement.fit, "readiness": str(judgement)} if (judgement := inspector.readiness) else {}
    return {
        "model": card.config.model, "category": card.config.category, "commit": card.commit, "detector": detector,
        "threshold": _threshold(inspector, detector), "quantile": card.config.quantile, "k": card.config.k,
        "bit_depth": card.config.bit_depth, "image_threshold": inspector.image_threshold,
        "image_rule": inspector.rule, "good_scores": list(card.maxima), **judged, "no_images": not_images,
    }  # fmt: skip
