"""An experiment as one ZIP archive to publish: maps, scores per image, provenance, a manifest and a licence note.

``manifest.json`` lists every file with its SHA-256; ``LICENCE.txt`` states the terms. Images, true masks and
reconstructions belong to the owner of the data set and are left out; those of the embedded data are free and included.
Predicted masks, scores and all tables need none of them.
"""

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clgan_lib.data import load_category
from clgan_lib.paths import replacing
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, dual_masks
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record

_FORMAT = 1
_PLAIN = ("metrics.json", "config.json", "env.json", "scores.csv", "history.csv", "import.csv")
_OWNED = ("images", "masks", "reconstructions")  # by the owner of the data set
_NOTE = """Anomaly maps, predicted masks and measures of experiment {name}, computed on: {data}.
{terms}
Each file's SHA-256 is in manifest.json. Who publishes this chooses a licence for maps and scores; CC BY 4.0 is usual.
"""
_FREE = "The images are synthetic, under the licence of the code that generated them (MIT); they are included."
_KEPT = """The images and true masks of this data set are not included, nor is any image made from them; they belong to its
owner (MVTec AD: MVTec Software GmbH, CC BY-NC-SA 4.0). Figures need them: get them there. The maps were computed from them;
as far as that licence applies, use the maps under it."""


def pack(folder: Path, archive: Path) -> Path:
    """Pack every finished run of an experiment into one archive.

    Args:
        folder: of the experiment.
        archive: the ZIP to write; whole or not at all.

    Returns:
        `archive`.

    Raises:
        FileNotFoundError: if the experiment has no finished run.
        FileExistsError: if the archive is there already.
    """
    if archive.exists():
        raise FileExistsError(f"{archive} exists; choose another name or remove it")
    runs = sorted(path.parent for path in folder.glob("*/*/seed*/metrics.json"))
    if not runs:
        raise FileNotFoundError(f"{folder} holds no finished run to pack")
    digests: dict[str, str] = {}
    roots = {run: read_record(run).config.data_root for run in runs}
    names = sorted({Path(root).name or "embedded" for root in roots.values()})
    with replacing(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        for run, root in roots.items():
            place = run.relative_to(folder).as_posix()
            for name in _PLAIN:
                if (run / name).is_file():
                    digests[f"{place}/{name}"] = _put(file, f"{place}/{name}", (run / name).read_bytes())
            if (run / "maps.npz").is_file():
                maps = _bytes(_shareable(run, free=not root))
                digests[f"{place}/maps.npz"] = _put(file, f"{place}/maps.npz", maps)
        terms = _KEPT if any(roots.values()) else _FREE
        note = _NOTE.format(name=folder.name, data=", ".join(names), terms=terms)
        digests["LICENCE.txt"] = _put(file, "LICENCE.txt", note.encode())
        manifest = {"format": _FORMAT, "experiment": folder.name, "data": names, "sha256": digests}
        _put(file, "manifest.json", json.dumps(manifest, indent=1).encode())
    return archive


def _shareable(run: Path, free: bool) -> dict[str, NDArray[Any]]:
    """The arrays of a run that may be published, with the masks that can't be computed from them."""
    maps = read_maps(run)
    if free:
        return maps
    if "reconstructions" in maps:
        k = read_record(run).config.k
        maps["dual_threshold"] = dual_masks(maps["images"], maps["reconstructions"], k)
    return {name: values for name, values in maps.items() if name not in _OWNED}


def _bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _put(file: zipfile.ZipFile, name: str, content: bytes) -> str:
    """Write a member without its date, so that the same runs make the same archive; returns its SHA-256."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(".npz") else zipfile.ZIP_DEFLATED
    file.writestr(entry, content)
    return hashlib.sha256(content).hexdigest()


def restore(archive: Path, results_root: Path, data_root: str = "") -> list[Path]:
    """Unpack an archive into run folders, from which the same tables can be made.

    Args:
        archive: from `pack`.
        results_root: the folder that holds experiments.
        data_root: the data set, from which images and true masks are put back beside the maps. Without it, runs on images
            that are not free have no ``maps.npz``, which figures need; tables and intervals are complete.

    Returns:
        The run folders.

    Raises:
        ValueError: if a file is missing, altered, or not in the manifest, or `data_root` is another data set.
        FileExistsError: if a run is there already.
        FileNotFoundError: if there is no such data. After any error, no run folder was made.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            manifest = _checked_manifest(file)
            runs = sorted({str(PurePosixPath(n).parent) for n in manifest["sha256"] if n.endswith("/metrics.json")})
            folders = [results_root / manifest["experiment"] / run for run in runs]
            for folder in folders:
                if folder.exists():
                    raise FileExistsError(f"{folder} exists; choose another results folder, or remove it")
            results_root.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=results_root, prefix=".") as whole:
                for name in (PurePosixPath(n) for n in manifest["sha256"]):
                    if str(name.parent) in runs:
                        Path(whole, name.parent).mkdir(parents=True, exist_ok=True)
                        _unpack(file.read(str(name)), Path(whole, name), data_root)
                for run, folder in zip(runs, folders, strict=True):
                    folder.parent.mkdir(parents=True, exist_ok=True)
                    Path(whole, run).rename(folder)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{archive} is no archive of this suite, or damaged: {error}") from error
    return folders


def _checked_manifest(file: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest, after each file of the archive was compared with it."""
    manifest = json.loads(file.read("manifest.json"))
    if manifest["format"] != _FORMAT:
        raise ValueError(f"{file.filename} has format {manifest['format']!r}, this version reads {_FORMAT}")
    try:
        RunConfig(experiment=manifest["experiment"])  # refuses another folder, and the paper's own
    except ValueError as error:
        raise ValueError(f"{file.filename}: {error}") from None
    listed = manifest["sha256"]
    for name in sorted((set(file.namelist()) - {"manifest.json"}) ^ set(listed)):
        raise ValueError(f"{file.filename}: {name} is not both in the archive and in its manifest; get it again")
    for name, digest in listed.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or len(path.parts) not in (1, 4):
            raise ValueError(f"{file.filename}: {name} would lie outside its run folder; not unpacked")
        if hashlib.sha256(file.read(name)).hexdigest() != digest:
            raise ValueError(f"{file.filename}: {name} is not what the manifest says; get the archive again")
    return manifest


def _unpack(content: bytes, path: Path, data_root: str) -> None:
    """Write one file; maps without images only if there is a data root to complete them from."""
    if path.name != "maps.npz":
        path.write_bytes(content)
        return
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    if "images" not in arrays:
        if not data_root:
            return
        category = load_category(data_root, path.parts[-3], SIZE)
        numbers = {name: i for i, name in enumerate(category.test_names)}
        missing = [str(n) for n in arrays["names"] if str(n) not in numbers]
        if missing:
            raise ValueError(
                f"data_root: {data_root} lacks test image {missing[0]} of {category.name}; is it another set?"
            )
        chosen = [numbers[str(n)] for n in arrays["names"]]
        arrays["images"] = category.test.numpy().transpose(0, 2, 3, 1)[chosen]
        arrays["masks"] = category.masks.numpy()[chosen]
        content = _bytes(arrays)
    path.write_bytes(content)
