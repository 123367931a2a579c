"""Score maps that another program wrote: found by name, opened one at a time.

Understood are, in any depth of folders: one map a file (``.npy``, ``.tif``, ``.tiff``, ``.npz``), named as the test image
it belongs to (``broken_large/003.npy`` or ``broken_large_003.npy``); ``.npz`` files with the names of a batch beside its
maps, as anomalib's predictions are when saved (``image_path``, ``anomaly_map``, ``pred_score``); and a CSV of image scores.
Maps of good images that were held out from training lie under a folder ``holdout`` or ``train``. Nothing is ever unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from clgan_lib.runs.folder import first_line

MAPS = ("anomaly_map", "anomaly_maps", "scores", "maps", "map", "arr_0")
NAMES = ("image_path", "image_paths", "names", "name", "paths")
SCORES = ("pred_score", "pred_scores", "image_scores", "image_score", "score")
SUFFIXES = (".npy", ".npz", ".tif", ".tiff")
HELD_OUT = ("holdout", "train")


@dataclass(frozen=True)
class Entry:
    """Where one map is: its file, and in a file of many the array and the row."""

    file: Path
    array: str = ""
    row: int | None = None


@dataclass
class Shelf:
    """What a folder holds.

    Attributes:
        maps: by the name of the test image without suffix, such as ``"broken_large/003"``.
        holdout: maps of held-out good images.
        image_scores: by the same names as `maps`.
        problems: (file, what is wrong), for files that are no use.
    """

    maps: dict[str, Entry] = field(default_factory=dict)
    holdout: list[Entry] = field(default_factory=list)
    image_scores: dict[str, float] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def key_of(path: str) -> tuple[str, bool]:
    """The name of an image, ``type/stem``, from any path to it, and whether it was held out from training."""
    parts = PurePosixPath(path.replace("\\", "/")).with_suffix("").parts
    folders = parts[:-1]
    if "test" in folders:  # a data root may itself lie in a folder called train
        folders = folders[len(folders) - folders[::-1].index("test") :]
    return "/".join(parts[-2:]), any(part in HELD_OUT for part in folders)


def scan(folder: str | Path) -> Shelf:
    """List the maps under a folder, opening no map.

    Raises:
        FileNotFoundError: if there is no such folder, or nothing in it that could be a map.
    """
    folder, shelf = Path(folder), Shelf()
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(SUFFIXES)} file; point at the folder of the score maps")
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            for path, entry, score in _entries(file, name):
                key, held_out = key_of(path)
                if held_out:
                    shelf.holdout.append(entry)
                elif key in shelf.maps:
                    shelf.problems.append((name, f"a second map for {key}; only the first counts"))
                else:
                    shelf.maps[key] = entry
                    shelf.image_scores |= {} if score is None else {key: score}
        except Exception as error:  # whatever a damaged file provokes in NumPy and zipfile
            shelf.problems.append((name, f"unreadable: {first_line(error)}"))
    for file in sorted(folder.rglob("*.csv")):
        name = file.relative_to(folder).as_posix()
        try:
            shelf.image_scores |= _csv_scores(file)
        except Exception as error:  # and in pandas
            shelf.problems.append((name, f"none of its scores count: {first_line(error)}"))
    return shelf


def _entries(file: Path, name: str) -> Iterator[tuple[str, Entry, float | None]]:
    """(path of the image, where its map is, its score) for each map of a file."""
    if file.suffix.lower() != ".npz":
        yield name, Entry(file), None
        return
    zipfile.ZipFile(file).close()  # np.load would open an .npy that is called .npz, too
    with np.load(file, allow_pickle=False) as arrays:
        array = next((a for a in MAPS if a in arrays.files), None)
        if array is None:
            raise ValueError(f"no array of maps; expected one of {', '.join(MAPS)}, found {', '.join(arrays.files)}")
        paths = next((arrays[a] for a in NAMES if a in arrays.files), None)
        scores = next((np.ravel(arrays[a]) for a in SCORES if a in arrays.files), None)
        good = len(arrays["holdout"]) if "holdout" in arrays.files else 0  # a run folder of this suite
    yield from ((f"holdout/{row}.npz", Entry(file, "holdout", row), None) for row in range(good))
    if paths is None or np.ndim(paths) == 0:
        given = name if paths is None else str(paths)
        yield given, Entry(file, array), None if scores is None else float(scores[0])
        return
    if scores is not None and len(scores) != len(paths):
        raise ValueError(f"{len(paths)} names but {len(scores)} image scores")
    for row, path in enumerate(paths):
        yield str(path), Entry(file, array, row), None if scores is None else float(scores[row])


def _csv_scores(file: Path) -> dict[str, float]:
    """Image scores of a CSV that has a column of names and one of scores; nothing of any other CSV."""
    frame = pd.read_csv(file)
    name, score = (next((c for c in wanted if c in frame), None) for wanted in (NAMES, SCORES))
    if name is None or score is None:
        return {}
    values = pd.to_numeric(frame[score], errors="coerce")
    wrong = frame[values.isna() & frame[score].notna()]
    if len(wrong):
        raise ValueError(
            f"column {score}, row {wrong[name].iloc[0]}: {wrong[score].iloc[0]!r} is no number; correct it"
        )
    return {key_of(str(n))[0]: float(value) for n, value in zip(frame[name], values, strict=True)}


class Reader:
    """Opens maps one at a time; of a file of many it keeps the last array, since its rows come one after the other."""

    def __init__(self) -> None:
        self.opened = 0
        self._last: tuple[tuple[Path, str], NDArray] | None = None

    def read(self, entry: Entry) -> NDArray[np.float32]:
        """One map, float32 ``(H, W)``.

        Raises:
            ValueError: in words, if the file is damaged, the map is not two-dimensional, or holds NaN or infinite values.
        """
        self.opened += 1
        try:
            values = np.asarray(self._load(entry))
        except Exception as error:  # whatever a damaged file provokes in NumPy, zipfile and tifffile
            raise ValueError(f"unreadable: {first_line(error)}") from error
        while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
        if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
            raise ValueError(f"not a map of numbers (H, W): {values.dtype} {values.shape}")
        values = values.astype(np.float32)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{bad} NaN or infinite values")
        return values

    def _load(self, entry: Entry) -> NDArray:
        if entry.file.suffix.lower() == ".npy":
            return np.load(entry.file, mmap_mode="r", allow_pickle=False)
        if entry.file.suffix.lower() != ".npz":
            return np.asarray(tifffile.imread(entry.file))  # OpenCV cannot read the 16-bit floats of MVTec AD 2
        if self._last is None or self._last[0] != (entry.file, entry.array):
            with np.load(entry.file, allow_pickle=False) as arrays:
                self._last = (entry.file, entry.array), arrays[entry.array]
        array = self._last[1]
        return array if entry.row is None else array[entry.row]


def to_size(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A map at ``(size, size)``: area averaging where it shrinks, bilinear where it grows."""
    if values.shape == (size, size):
        return values
    shrinks = min(values.shape) >= size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (size, size), interpolation=how), np.float32)
