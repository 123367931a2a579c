"""Images of one product: any folder in the MVTec AD layout, decoded once.

    <root>/<category>/train/good/*.png                       good images to learn from
    <root>/<category>/test/good/*.png                        good images to test on
    <root>/<category>/test/<defect type>/000.png             defective ones ...
    <root>/<category>/ground_truth/<defect type>/000_mask.png   ... and where the defect is, see `clgan_lib.image_files`

Names are compared without regard to case and Unicode form. ``good`` may be called ``ok`` or ``normal``; a mask may be called
as its image, or be a folder of that name (``000/*.png``, united), as in BTAD, VisA and MVTec LOCO AD.

MVTec AD: Bergmann, Fauser, Sattlegger, Steger, "MVTec AD - A comprehensive real-world dataset for unsupervised anomaly
detection", CVPR 2019.
"""

import difflib
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clgan_lib.image_files import (
    SUFFIXES,
    entries,
    list_images,
    mask_files,
    name_key,
    named,
    read_image,
    read_mask,
    require_full_scale,
    shown,
    shrink_mask,
    usual,
)
from clgan_lib.paths import CACHE, replacing, safe_name

_CACHE_FORMAT = 3  # raise when the decoding changes
_GOOD = ("good", "ok", "normal")


@dataclass(frozen=True)
class Category:
    """All images of one product at S x S.

    Attributes:
        train: good images, uint8 ``(N, 3, S, S)``, RGB.
        test: good and defective images, uint8 ``(M, 3, S, S)``.
        masks: where the defects are, bool ``(M, S, S)``.
        defects: defect type of each test image, or ``"good"``.
        train_names, test_names: paths relative to ``train`` and ``test``, such as ``"broken_large/003.png"``.
    """

    name: str
    root: Path
    image_size: int
    train: Tensor
    test: Tensor
    masks: Tensor
    defects: tuple[str, ...]
    train_names: tuple[str, ...]
    test_names: tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """The files of one category: train images, and test images with their type and, where there is one, their mask."""

    train: tuple[Path, ...]
    test: tuple[tuple[Path, str, Path | None], ...]

    def all(self) -> Iterable[Path]:
        """Every image and mask."""
        yield from self.train
        for image, _, mask in self.test:
            yield image
            yield from mask_files(mask) if mask else ()


def list_categories(root: str | Path) -> list[str]:
    """Names of the folders under `root` that hold a ``train/good``.

    Raises:
        FileNotFoundError: if `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"data root {root} is not a folder; point data_root at the folder that holds the categories"
        )
    readable = [p for p in root.iterdir() if usual(p.name) and os.access(p, os.R_OK | os.X_OK)]
    return sorted(p.name for p in readable if _good(named(p, "train")).is_dir())


def find_folder(root: str | Path, category: str) -> Path:
    """The folder of a category.

    Raises:
        ValueError: if `category` is not a plain name.
        FileNotFoundError: if root or category is missing, with the categories that are there.
    """
    folder = named(Path(root), safe_name(category, "category"))
    known = list_categories(root)
    if not folder.is_dir():
        there = ", ".join(map(shown, known)) or f"none{meant_root(root)}"
        raise FileNotFoundError(f"category {category!r} is not in {root}; there are: {there}")
    return folder


def meant_root(root: str | Path) -> str:
    """A hint where `root` is itself a category, or holds the folder that holds the categories; else empty."""
    root = Path(root).resolve()
    below = next(root.glob("*/*/train/good"), None)
    meant = root.parent if _good(named(root, "train")).is_dir() else below.parents[2] if below else None
    return f"; did you mean data_root {meant}?" if meant else ""


def find_files(root: str | Path, category: str) -> Files:
    """The image and mask files of one category, without opening them; a missing mask is None.

    Raises:
        ValueError: if `category` is not a plain name, a file's name is not UTF-8, or masks and images are not one to one.
        FileNotFoundError: if the root, the category, or one of its folders is missing or empty.
    """
    folder = find_folder(root, category)
    good, tests, truth = (named(folder, part) for part in ("train", "test", "ground_truth"))
    train = tuple(list_images(_good(good)))
    test: list[tuple[Path, str, Path | None]] = []
    for place in [path for path in entries(tests) if path.is_dir()]:
        defect = "good" if place == _good(tests) else unicodedata.normalize("NFC", place.name)
        images = list_images(place)
        masks = _match(images, named(truth, place.name))
        test += [(image, defect, mask) for image, mask in zip(images, masks, strict=True)]
    if not train:
        raise FileNotFoundError(f"category {category!r}: no image in {folder / 'train' / 'good'}; good images go there")
    if not test:
        raise FileNotFoundError(f"category {category!r}: no image in {folder / 'test'}; test images go there, by type")
    return Files(train, tuple(test))


def _good(folder: Path) -> Path:
    """The folder of good images: ``good``, else the only one with another name for it."""
    if (folder / "good").is_dir() or not folder.is_dir():
        return folder / "good"
    alike = [path for path in folder.iterdir() if path.is_dir() and name_key(path.name) in _GOOD]
    return alike[0] if len(alike) == 1 else folder / "good"


def _match(images: list[Path], folder: Path) -> list[Path | None]:
    """The mask of each image of one type, by name: ``000_mask.png``, ``000.png`` or the folder ``000``.

    Raises:
        ValueError: if an image has two, or two images have one.
    """
    named_alike: dict[str, list[tuple[str, Path]]] = {}
    for path in entries(folder):
        is_image = path.suffix.lower() in SUFFIXES
        if is_image or path.is_dir():
            name = path.stem if is_image else path.name
            named_alike.setdefault(name_key(name), []).append((name, path))
    owner: dict[Path, Path] = {}
    masks: list[Path | None] = []
    for image in images:
        candidates: list[Path] = []
        for wanted in (f"{image.stem}_mask", image.stem):
            alike = named_alike.get(name_key(wanted), [])
            candidates = candidates or [path for name, path in alike if name == wanted] or [path for _, path in alike]
        if len(candidates) > 1:
            raise ValueError(f"{image} has several masks, {' and '.join(map(str, candidates))}; keep one")
        masks.append(candidates[0] if candidates else None)
        if candidates and owner.setdefault(candidates[0], image) != image:
            raise ValueError(
                f"{candidates[0]} is the mask of {owner[candidates[0]].name} and of {image}; rename one of them"
            )
    return masks


def load_category(root: str | Path, category: str, image_size: int, bit_depth: int = 0) -> Category:
    """Load one product, decoding it only once: later calls read one file from the cache.

    Grey, RGBA and 16-bit images become 8-bit RGB; images of any size and shape are resized to S x S (area averaging),
    masks by nearest neighbour, where a region that this would erase keeps its central pixel.

    Args:
        root: folder in the MVTec AD layout.
        category: folder name under it.
        image_size: S, in pixels.
        bit_depth: of images with more than 8 bits a channel: one scale for the whole set. 0 for all bits that a file has.

    Raises:
        ValueError: naming the file that is unreadable or a link to nowhere, the mask that is missing, empty or of another
            size than its image, or the deep images that stay far below full scale, until `bit_depth` is given.
        FileNotFoundError: naming the folder that is missing or empty.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 4096:
        raise ValueError(f"image_size: expected a whole number of pixels from 8 to 4096, got {image_size!r}")
    root = Path(root).resolve()
    folder, files = find_folder(root, category), find_files(root, category)
    for image, defect, mask in files.test:
        if defect != "good" and mask is None:
            place = named(named(folder, "ground_truth"), image.parent.name)
            wanted = place / f"{image.stem}_mask.png"
            unused = [path.name for path in entries(place) if path not in {mask for _, _, mask in files.test}]
            near = difflib.get_close_matches(wanted.name, unused, 1)
            hint = f"; or is it {near[0]}?" if near else ""
            raise ValueError(f"category {category!r}: {image} has no mask; add {wanted} or remove the image{hint}")
    stamps = [_stamp(path) for path in files.all()]
    key = hashlib.sha256(json.dumps([_CACHE_FORMAT, image_size, bit_depth, stamps]).encode()).hexdigest()[:24]
    cached = CACHE / "decoded" / f"{category}-{image_size}-{key}.safetensors"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cached}.lock"):  # two runs that start together decode once
        tensors = _read_cache(cached)
        if tensors is None:
            tensors = _decode(files, image_size, bit_depth)
            with replacing(cached) as part:
                save_file(tensors, part)
    return Category(
        name=folder.name,
        root=root,
        image_size=image_size,
        **tensors,
        defects=tuple(defect for _, defect, _ in files.test),
        train_names=tuple(f"{path.parent.name}/{path.name}" for path in files.train),
        test_names=tuple(f"{path.parent.name}/{path.name}" for path, _, _ in files.test),
    )


def _stamp(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    try:
        return str(path), path.stat().st_size, path.stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"{path} is a link that leads nowhere ({error.strerror}); replace or remove it") from None


def resize(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """RGB ``(S, S, 3)``: area averaging where the image shrinks, bilinear where it grows."""
    method = Image.Resampling.BOX if min(image.size) >= image_size else Image.Resampling.BILINEAR
    return np.asarray(image if image.size == (image_size,) * 2 else image.resize((image_size,) * 2, method))


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] to the models' float32 [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float [-1, 1] to uint8, rounded; the reconstruction becomes an image like its input."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _decode(files: Files, image_size: int, bit_depth: int) -> dict[str, Tensor]:
    """Decode a whole category into train, test and masks."""
    if not bit_depth:
        require_full_scale(files.train)
    read = partial(read_image, bit_depth=bit_depth)

    def decode_test(entry: tuple[Path, str, Path | None]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A test image and its mask, empty for a good one."""
        path, defect, mask_path = entry
        image = read(path)
        if defect == "good" or mask_path is None:
            return resize(image, image_size), np.zeros((image_size, image_size), bool)
        return resize(image, image_size), shrink_mask(read_mask(mask_path, image.size), image_size)[0]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        train = list(pool.map(lambda path: resize(read(path), image_size), files.train))
        test, masks = zip(*pool.map(decode_test, files.test), strict=True)
    as_tensor = lambda images: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()  # noqa: E731
    return {"train": as_tensor(train), "test": as_tensor(test), "masks": torch.from_numpy(np.stack(masks))}


def _read_cache(path: Path) -> dict[str, Tensor] | None:
    """The decoded tensors, or None where the file is missing or damaged (it is then made again)."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in ("train", "test", "masks")}
    except (SafetensorError, OSError):
        return None
