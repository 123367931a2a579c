"""The embedded data set: one product from a name and a seed, and all of them in the MVTec AD layout, read like a real one.

A category is drawn into a hidden folder and renamed when it is whole. The marker file in the root names it before that, so
a folder of that name is either ours and whole, or not ours and left alone.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from filelock import FileLock
from numpy.random import Generator
from numpy.typing import NDArray

from clgan_lib.synthetic import defects_objects, defects_textures, objects, textures
from clgan_lib.synthetic.canvas import Canvas
from clgan_lib.synthetic.scene import Defect, Scene

MARKER = "clgan_synthetic.json"
LOCK = ".clgan_synthetic.lock"
VERSION = 2  # of the drawings: raised whenever one seed no longer gives the same images
_PRODUCTS: dict[str, tuple[Callable[[Canvas, Generator], Scene], dict[str, Defect]]] = {
    "bottle": (objects.bottle, defects_objects.BOTTLE),
    "carpet": (textures.carpet, defects_textures.CARPET),
    "grid": (textures.grid, defects_textures.GRID),
    "hazelnut": (objects.hazelnut, defects_objects.HAZELNUT),
    "leather": (textures.leather, defects_textures.LEATHER),
    "metal_nut": (objects.metal_nut, defects_objects.METAL_NUT),
    "tile": (textures.tile, defects_textures.TILE),
    "wood": (textures.wood, defects_textures.WOOD),
}
CATEGORIES: tuple[str, ...] = tuple(_PRODUCTS)
DEFECTS: dict[str, tuple[str, ...]] = {name: tuple(defects) for name, (_, defects) in _PRODUCTS.items()}
_SMALLEST = 32  # pixels; below, a crack or a hair is nowhere more than a trace


def _check(category: str, image_size: int) -> None:
    """Refuse a category that is not embedded, and a size at which defects vanish."""
    if category not in _PRODUCTS:
        raise ValueError(f"category {category!r} is not embedded: choose from {', '.join(CATEGORIES)}")
    if image_size < _SMALLEST:
        raise ValueError(f"image_size: expected at least {_SMALLEST} pixels, got {image_size}")


def draw(
    category: str, defect: str = "good", *, image_size: int = 256, seed: int | Sequence[int] = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one product, good or with a defect.

    The product depends on ``category`` and ``seed`` alone, so ``draw(c, "good", seed=s)`` is the very scene that
    ``draw(c, d, seed=s)`` damages: outside the mask the two are equal. ``image_size`` changes the sharpness, not the
    scene.

    Args:
        category: one of ``CATEGORIES``.
        defect: ``"good"`` or one of ``DEFECTS[category]``.
        image_size: side in pixels, at least 32.
        seed: a non-negative number, or several.

    Returns:
        The image, ``(S, S, 3)`` uint8 RGB, and its mask, ``(S, S)`` bool.

    Raises:
        ValueError: if the category, the defect or the size is not to be had.
    """
    _check(category, image_size)
    product, defects = _PRODUCTS[category]
    if defect != "good" and defect not in defects:
        raise ValueError(f"defect {defect!r} of {category} is not embedded: choose from good, {', '.join(defects)}")
    entropy = [seed] if isinstance(seed, int | np.integer) else list(seed)
    scene = product(Canvas(image_size), np.random.default_rng([*entropy, zlib.crc32(category.encode())]))
    loose = 0
    if defect != "good":
        rng = np.random.default_rng([*entropy, zlib.crc32(f"{category}/{defect}".encode())])
        loose = int(rng.integers(0, 4))
        defects[defect](scene, rng)
    return scene.render(loose)


def write_dataset(
    root: str | Path,
    *,
    categories: Sequence[str] | None = None,
    image_size: int = 256,
    train: int = 150,
    test: int = 60,
    seed: int = 0,
) -> Path:
    """Draw the embedded data set into a folder, or complete one that this function has begun.

    Args:
        root: the folder; it is made if it is missing. Beside a data set with other parameters, or other files, nothing
            is written.
        categories: which of ``CATEGORIES`` (default: all). Those the folder already has are left as they are.
        image_size: side of the images in pixels, at least 32.
        train: good training images per category.
        test: defective test images per category, spread evenly over its defect types; a third as many good ones are
            added.
        seed: another seed gives other images; the counts do not matter to an image of a given name.

    Returns:
        ``root`` as a path.

    Raises:
        ValueError: if an argument is out of range, or if ``root`` was written with other parameters.
        FileExistsError: if ``root`` holds something that this function did not write.
    """
    names = tuple(CATEGORIES if categories is None else dict.fromkeys(categories))
    parameters = {"version": VERSION, "image_size": image_size, "train": train, "test": test, "seed": seed}
    for key in ("train", "test", "seed", "image_size"):
        if not isinstance(parameters[key], int) or parameters[key] < 0:
            raise ValueError(f"{key}: expected a whole number >= 0, got {parameters[key]!r}")
    for name in names:
        _check(name, image_size)
    root = Path(root)
    _refuse_foreign(root, names, parameters)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        written = _refuse_foreign(root, names, parameters)  # again: another process may have been quicker
        record = {"what": "embedded data of clgan_lib.synthetic", "parameters": parameters}
        record["categories"] = sorted({*written, *names})
        _replace(root / MARKER, (json.dumps(record, indent=2) + "\n").encode())
        for name in names:
            _write_category(root, name, image_size, train, test, seed)
    return root


def _refuse_foreign(root: Path, names: tuple[str, ...], parameters: dict[str, int]) -> list[str]:
    """The categories that the marker in ``root`` claims; raises if the folder is not ours or of other parameters."""
    if not root.exists():
        return []
    if not root.is_dir():
        raise FileExistsError(f"{root}: is a file; choose another folder for the embedded data")
    marker = root / MARKER
    if not marker.exists():
        ours = (LOCK, _part(marker).name)  # a process may have been killed while it wrote the marker
        others = sorted(entry.name for entry in root.iterdir() if entry.name not in ours)
        if others:
            raise FileExistsError(f"{root}: holds {others[0]!r}, which is not embedded data; choose an empty folder")
        return []
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        present, written = record["parameters"], list(record["categories"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker}: not readable ({error}); delete {root} to have it drawn again") from None
    if present != parameters:
        raise ValueError(
            f"{root}: was drawn with {present}, asked for {parameters}; choose another folder or delete it"
        )
    for name in names:
        if name not in written and (root / name).exists():
            raise FileExistsError(f"{root / name}: is not embedded data; move it away or choose another folder")
    return written


def _write_category(root: Path, name: str, image_size: int, train: int, test: int, seed: int) -> None:
    """Draw what a category lacks: all of it into a hidden folder that is renamed, or single files that were deleted."""
    place, hidden = root / name, root / f".{name}.partial"
    shutil.rmtree(hidden, ignore_errors=True)  # left by a process that was killed
    whole = place.exists()
    target = place if whole else hidden
    for folder in ("train", "test", "ground_truth"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for split, defect, index in _listing(name, train, test):
        image_file = target / split / defect / f"{index:03d}.png"
        mask_file = target / "ground_truth" / defect / f"{index:03d}_mask.png" if defect != "good" else None
        if image_file.exists() and (mask_file is None or mask_file.exists()):
            continue
        entropy = (seed, zlib.crc32(f"{split}/{defect}".encode()), index)
        image, mask = draw(name, defect, image_size=image_size, seed=entropy)
        if mask_file is not None:
            _replace(mask_file, _png(mask.astype(np.uint8) * 255))
        _replace(image_file, _png(image[..., ::-1]))
    if not whole:
        hidden.rename(place)


def _listing(name: str, train: int, test: int) -> Iterator[tuple[str, str, int]]:
    """Split, type and number of every image of a category."""
    types = DEFECTS[name]
    counts = {defect: test // len(types) + (place < test % len(types)) for place, defect in enumerate(types)}
    yield from (("train", "good", index) for index in range(train))
    yield from (("test", "good", index) for index in range(test // 3))
    yield from (("test", defect, index) for defect, count in counts.items() for index in range(count))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _part(path).write_bytes(content)
    os.replace(_part(path), path)


def _part(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.tmp")
