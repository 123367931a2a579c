"""Anomaly maps that another program wrote: located by name, opened one at a time. Nothing is ever unpickled.

Three kinds of files are read, in any depth of folders:

* one map per file (``.npy``, ``.tif``, ``.tiff``, ``.npz``), named as its test image: ``broken_large/003.npy`` or
  ``broken_large_003.npy``;
* ``.npz`` with the names of a batch beside its maps, as anomalib's predictions (``image_path``, ``anomaly_map``,
  ``pred_score``);
* a CSV of image scores.

Maps of held-out good images lie under a folder ``holdout`` or ``train``.
"""

import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from clgan_lib.image_files import shown
from clgan_lib.runs.folder import first_line

_MAPS = ("anomaly_map", "anomaly_maps", "scores", "maps", "map", "arr_0")
_NAMES = ("image_path", "image_paths", "names", "name", "paths", "path", "filename", "file_name", "file", "image")
_SCORES = ("pred_score", "pred_scores", "image_scores", "image_score", "score", "scores", "anomaly_score")
_SUFFIXES = (".npy", ".npz", ".tif", ".tiff")
_SUFFIX = re.compile(r"(\.(png|jpe?g|bmp|tiff?))?(\.(npy|npz|tiff?))?$", re.I)  # of 000.png.npy, not of plate_1.25
_HELD_OUT = ("holdout", "train")
_LEVELS = 1000  # that float32 has to tell apart between the smallest and the largest value of a map


@dataclass(frozen=True)
class MapLocation:
    """Where one map is: its file, and in a file of many its array and row."""

    file: Path
    array: str = ""
    row: int | None = None


@dataclass
class MapIndex:
    """The maps of a folder.

    Attributes:
        maps: by the name of the test image without suffix, such as ``"broken_large/003"``.
        holdout: maps of held-out good images.
        image_scores: by the name of the test image, with its type before ``/`` or ``_``.
        score_files: the names in each CSV.
        problems: (file, reason) of each file that cannot be used.
    """

    maps: dict[str, MapLocation] = field(default_factory=dict)
    holdout: list[MapLocation] = field(default_factory=list)
    image_scores: dict[str, float] = field(default_factory=dict)
    score_files: dict[str, list[str]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def match(
    index: MapIndex, names: Sequence[str], category: str
) -> tuple[dict[str, str], dict[str, float], list[tuple[str, str]]]:
    """Keys of the maps and image scores by test image, and what fits no image or is missing.

    Args:
        index: of maps and scores, named as their images or with ``_`` for ``/``, as ``broken_large_003.npy``.
        names: of the test images, as from `image_key`.
        category: of them.
    """
    images = {name.replace("/", "_"): name for name in names} | dict(zip(names, names, strict=True))

    def image_of(key: str) -> str | None:
        """The image that a key names, by its whole path or its last part."""
        return images.get(key) or images.get(key.rpartition("/")[2])

    keys: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for key in index.maps:
        name = image_of(key)
        if name is None:
            problems.append((key, f"no test image of {category} has this name; expected such as {names[0]}"))
        elif keys.setdefault(name, key) != key:
            problems.append((key, f"a second map for {name}; only the first counts"))
    problems += [(name, "no map") for name in names if name not in keys]
    for file, rows in index.score_files.items():
        if not any(image_of(row) in keys for row in rows):
            problems.append((file, "none of its rows names a test image that has a map; no score of it counts"))
    scores = {name: score for key, score in index.image_scores.items() if (name := image_of(key)) in keys and name}
    return {name: keys[name] for name in names if name in keys}, scores, problems


def image_key(path: str) -> tuple[str, bool]:
    """The name of an image, ``type/stem``, from any path to it, and whether it was held out from training."""
    parts = PurePosixPath(_SUFFIX.sub("", path.strip().replace("\\", "/"))).parts
    folders = parts[:-1]
    tests = [i for i, part in enumerate(folders) if part == "test" or part.startswith("test_")]  # AD 2: test_public
    if tests:  # a data root may itself lie in a folder called train
        folders = folders[tests[-1] :]
    elif parts and (parts[0] == "/" or parts[0].endswith(":")):
        folders = folders[-2:]
    key = unicodedata.normalize("NFC", "/".join(parts[-2:]))
    return shown(key), any(part in _HELD_OUT for part in folders)


def index_maps(folder: str | Path) -> MapIndex:
    """List the maps under a folder without opening one.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no file of a known kind.
    """
    folder, index = Path(folder), MapIndex()
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(_SUFFIXES)} file; name the folder of the anomaly maps")
    for file in files:
        name = file.relative_to(folder).as_posix()
        told = shown(name)
        try:
            for path, location, score in _locations(file, name):
                key, held_out = image_key(path)
                if held_out:
                    index.holdout.append(location)
                elif key in index.maps:
                    index.problems.append((told, f"a second map for {key}; only the first counts"))
                else:
                    index.maps[key] = location
                    index.image_scores |= {} if score is None else {key: score}
        except Exception as error:  # NumPy and zipfile may raise anything on a damaged file
            index.problems.append((told, f"unreadable: {first_line(error)}"))
    for file in sorted(folder.rglob("*.csv")):
        name = shown(file.relative_to(folder).as_posix())
        try:
            scores = _csv_scores(file)
            index.image_scores |= scores
            index.score_files[name] = list(scores)
        except Exception as error:  # pandas, too
            index.problems.append((name, f"none of its scores count: {first_line(error)}"))
    return index


def _locations(file: Path, name: str) -> Iterator[tuple[str, MapLocation, float | None]]:
    """Path of the image, location of its map, and its image score, for each map of a file."""
    if file.suffix.lower() != ".npz":
        yield name, MapLocation(file), None
        return
    zipfile.ZipFile(file).close()  # np.load would open an .npy that is called .npz, too
    with np.load(file, allow_pickle=False) as arrays:
        array = next((a for a in _MAPS if a in arrays.files), None)
        if array is None:
            raise ValueError(f"no array of maps; expected one of {', '.join(_MAPS)}, found {', '.join(arrays.files)}")
        paths = next((arrays[a] for a in _NAMES if a in arrays.files), None)
        scores = next((np.ravel(arrays[a]) for a in _SCORES if a in arrays.files), None)
        good = len(arrays["holdout"]) if "holdout" in arrays.files else 0  # a run folder of this suite
    yield from ((f"holdout/{row}.npz", MapLocation(file, "holdout", row), None) for row in range(good))
    if paths is None or np.ndim(paths) == 0:
        given = name if paths is None else str(paths)
        yield given, MapLocation(file, array), None if scores is None else float(scores[0])
        return
    if scores is not None and len(scores) != len(paths):
        raise ValueError(f"{len(paths)} names but {len(scores)} image scores")
    for row, path in enumerate(paths):
        yield str(path), MapLocation(file, array, row), None if scores is None else float(scores[row])


def _csv_scores(file: Path) -> dict[str, float]:
    """Image scores of a CSV with a column of names and one of scores.

    Raises:
        ValueError: if it is not in UTF-8, has no such columns, a score that is no number, or two for one image.
    """
    try:  # comma, semicolon or tab; a spreadsheet begins UTF-8 with a mark, and some write 0,5
        frame = pd.read_csv(file, dtype=str, sep=None, engine="python", encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8; save it as CSV UTF-8") from None
    columns = {str(column).strip().lower(): column for column in frame}
    name, score = (next((columns[c] for c in wanted if c in columns), None) for wanted in (_NAMES, _SCORES))
    if name is None or score is None:
        raise ValueError(f"no column of names ({', '.join(_NAMES)}) or none of scores ({', '.join(_SCORES)})")
    values = pd.to_numeric(frame[score].str.replace(",", "."), errors="coerce")
    wrong = frame[values.isna() & frame[score].notna()]
    if len(wrong):
        row, value = wrong[[name, score]].iloc[0]
        raise ValueError(f"column {score}, row {row}: {value!r} is no number; correct it")
    scores = values.groupby([image_key(str(n))[0] for n in frame[name]])
    if (scores.nunique() > 1).any():
        raise ValueError(f"two scores for {scores.nunique().idxmax()}; keep one")
    return {str(key): float(value) for key, value in scores.first().items()}


class MapReader:
    """Opens maps one at a time. It keeps the last array of a file of many, whose rows are read one after the other."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Path, str], NDArray] | None = None

    def read(self, location: MapLocation, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """One map, float32 ``(H, W)``.

        Args:
            location: of the map.
            size: (width, height) of its image, where that is known.

        Raises:
            ValueError: if the file is damaged, or the map not two-dimensional, not finite, equal in float32 though its
                values differ, or of the shape of its image reversed, but for the scale and a rounding.
        """
        try:
            values = np.asarray(self._load(location))
        except Exception as error:  # as in `index_maps`, and in tifffile
            raise ValueError(f"unreadable: {first_line(error)}") from error
        while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
        if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiub":
            raise ValueError(f"not a map of numbers (H, W): {values.dtype} {values.shape}")
        (height, width), (columns, rows) = values.shape, size or values.shape[::-1]
        if (height - width) * (rows - columns) < 0 and abs(height * rows - width * columns) <= max(rows, columns):
            raise ValueError(f"the map is {width}x{height} and its image {columns}x{rows}; transpose the map")
        given, values = values, values.astype(np.float32)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{bad} NaN or infinite values")
        low, high = float(given.min()), float(given.max())
        step = float(np.spacing(np.float32(max(abs(low), abs(high)))))  # of neighbouring float32 numbers
        if given.dtype.itemsize > 2 and 0 < high - low < _LEVELS * step and (given != values).any():
            raise ValueError(
                f"float32 cannot tell its values apart ({low} to {high}); subtract a common offset from all maps"
            )
        return values

    def _load(self, location: MapLocation) -> NDArray:
        if location.file.suffix.lower() == ".npy":
            return np.load(location.file, mmap_mode="r", allow_pickle=False)
        if location.file.suffix.lower() != ".npz":
            return np.asarray(tifffile.imread(location.file))  # OpenCV cannot read the 16-bit floats of MVTec AD 2
        if self._last is None or self._last[0] != (location.file, location.array):
            with np.load(location.file, allow_pickle=False) as arrays:
                self._last = (location.file, location.array), arrays[location.array]
        array = self._last[1]
        return array if location.row is None else array[location.row]


def resize_map(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A map at ``(size, size)``: area averaging where it shrinks, bilinear where it grows."""
    if values.shape == (size, size):
        return values
    method = cv2.INTER_AREA if min(values.shape) >= size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (size, size), interpolation=method), np.float32)
