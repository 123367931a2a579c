"""``maps.npz``: the images, reconstructions, score maps and masks of a finished run. Nothing is unpickled."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clgan_lib.paths import replacing
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.folder import REDO
from clgan_lib.runs.record import read_record

# Errors of zipfile and NumPy on a truncated, edited or foreign file; a huge shape is a MemoryError.
_BROKEN = (OSError, EOFError, KeyError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError, RuntimeError,
          zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)  # fmt: skip


def write_maps(folder: Path, evaluation: Evaluation) -> None:
    """Write ``maps.npz``: all that figures need, and all that the scores can be computed from again."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(evaluation, name) for name in ("images", "scores", "holdout")}
    arrays |= {"masks": evaluation.truths, "names": np.array(evaluation.names)}
    arrays["defects"] = np.array(evaluation.defects)
    if len(evaluation.reconstructions):
        arrays["reconstructions"] = evaluation.reconstructions
    else:  # the paper's masks cannot be computed from the file
        arrays["dual_threshold"] = evaluation.masks["dual_threshold"]
    arrays |= {} if evaluation.image_scores is None else {"image_scores": evaluation.image_scores}
    arrays |= {"native": evaluation.masks["native"]} if "native" in evaluation.masks else {}
    with replacing(folder / "maps.npz") as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_maps(folder: str | Path, names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Arrays of a run's ``maps.npz``, by the names that `write_maps` uses.

    Args:
        folder: the run's.
        names: of the arrays; all by default. Reading few is faster.

    Raises:
        FileNotFoundError: if the run kept no maps.
        ValueError: if the file is damaged or lacks an array.
    """
    path = Path(folder) / "maps.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: figures need the maps; copy them here, or {REDO}")
    try:
        with zipfile.ZipFile(path):  # np.load would take any file, a pickle too, and refuse it less clearly
            pass
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names or file.files}
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or incomplete ({reason}); {REDO}") from error
    counts = {name: len(array) for name, array in arrays.items() if name != "holdout" and array.ndim}
    if len(counts) < len(arrays.keys() - {"holdout"}) or len(set(counts.values())) > 1:
        raise ValueError(f"{path} is damaged: its arrays hold different numbers of images ({counts}); {REDO}")
    return arrays


def map_names(folder: str | Path) -> list[str]:
    """Names of the arrays in a run's ``maps.npz``; ``reconstructions`` and ``native`` may be missing."""
    try:
        with np.load(Path(folder) / "maps.npz", allow_pickle=False) as file:
            return list(file.files)
    except _BROKEN as error:
        raise ValueError(f"{folder}/maps.npz is damaged ({error}); {REDO}") from error


def read_evaluation(folder: Path) -> Evaluation:
    """A finished run's predictions, as `clgan_lib.runs.evaluation.evaluate` returned them.

    The paper's masks are included only where there are no reconstructions to compute them from.

    Raises:
        FileNotFoundError: if the run is not finished or kept no maps.
        ValueError: if its files are damaged.
    """
    threshold, maps = read_record(folder).thresholds.calibrated, read_maps(folder)
    masks: dict[str, NDArray[np.bool_]] = {name: maps[name] for name in ("dual_threshold", "native") if name in maps}
    if threshold is not None:
        masks["calibrated"] = maps["scores"] > threshold
    return Evaluation(
        images=maps["images"],
        reconstructions=maps.get("reconstructions", maps["images"][:0]),
        scores=maps["scores"],
        truths=maps["masks"].astype(bool),
        masks=masks,
        holdout=maps.get("holdout", np.zeros((0, *maps["scores"].shape[1:]), np.float32)),
        threshold=threshold,
        names=tuple(map(str, maps["names"])),
        defects=tuple(map(str, maps["defects"])),
        image_scores=maps.get("image_scores"),
    )
