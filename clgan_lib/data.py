"""Images of one product: any folder in the MVTec AD layout, decoded once.

    <root>/<category>/train/good/*.png                       good images to learn from
    <root>/<category>/test/good/*.png                        good images to test on
    <root>/<category>/test/<defect type>/000.png             defective ones ...
    <root>/<category>/ground_truth/<defect type>/000_mask.png   ... and where the defect is, not 0

MVTec AD: Bergmann, Fauser, Sattlegger, Steger, "MVTec AD - A comprehensive real-world dataset for unsupervised anomaly
detection", CVPR 2019.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clgan_lib.paths import CACHE, replacing, safe_name

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_CACHE_FORMAT = 1  # raise when the decoding below changes


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
    """The files of one category: train images, and test images with their type and, where defective, their mask."""

    train: tuple[Path, ...]
    test: tuple[tuple[Path, str, Path | None], ...]

    def all(self) -> Iterable[Path]:
        """Every image and mask."""
        yield from self.train
        for image, _, mask in self.test:
            yield image
            if mask:
                yield mask


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
    return sorted(p.name for p in root.iterdir() if (p / "train" / "good").is_dir())


def find_files(root: str | Path, category: str) -> Files:
    """The image and mask files of one category, without opening them.

    Masks are matched by name: ``ground_truth/<type>/<stem>_mask.png``; a missing one is None.

    Raises:
        ValueError: if `category` is not a plain name.
        FileNotFoundError: if the root, the category, or one of its folders is missing or empty.
    """
    folder = Path(root) / safe_name(category, "category")
    known = list_categories(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"category {category!r} is not in {root}; there are: {', '.join(known) or 'none'}")
    train = tuple(_images(folder / "train" / "good"))
    types = (
        sorted(p.name for p in (folder / "test").iterdir() if p.is_dir() and p.name[0] != ".")
        if (folder / "test").is_dir()
        else []
    )
    test: list[tuple[Path, str, Path | None]] = []
    for defect in types:
        masks = {p.stem: p for p in _images(folder / "ground_truth" / defect)}
        test += [(p, defect, masks.get(f"{p.stem}_mask")) for p in _images(folder / "test" / defect)]
    if not train:
        raise FileNotFoundError(f"category {category!r}: no image in {folder / 'train' / 'good'}; good images go there")
    if not test:
        raise FileNotFoundError(f"category {category!r}: no image in {folder / 'test'}; test images go there, by type")
    return Files(train, tuple(test))


def load_category(root: str | Path, category: str, image_size: int) -> Category:
    """Load one product, decoding it only once: later calls read one file from the cache.

    Grey, RGBA and 16-bit images become 8-bit RGB; images of any size and shape are resized to S x S (area averaging),
    masks by nearest neighbour.

    Args:
        root: folder in the MVTec AD layout.
        category: folder name under it.
        image_size: S, in pixels.

    Raises:
        ValueError: naming the file that is unreadable, or the mask that is missing, empty or of another size than its image.
        FileNotFoundError: naming the folder that is missing or empty.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 4096:
        raise ValueError(f"image_size: expected a whole number of pixels from 8 to 4096, got {image_size!r}")
    root = Path(root).resolve()
    files = find_files(root, category)
    for image, defect, mask in files.test:
        if defect != "good" and mask is None:
            wanted = root / category / "ground_truth" / defect / f"{image.stem}_mask.png"
            raise ValueError(f"category {category!r}: {image} has no mask; add {wanted} or remove the image")
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files.all()]
    key = hashlib.sha256(json.dumps([_CACHE_FORMAT, image_size, stamps]).encode()).hexdigest()[:24]
    cached = CACHE / "decoded" / f"{category}-{image_size}-{key}.safetensors"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cached}.lock"):  # two runs that start together decode once
        tensors = _read_cache(cached)
        if tensors is None:
            tensors = _decode(files, image_size)
            with replacing(cached) as part:
                save_file(tensors, part)
    base = root / category
    return Category(
        name=category,
        root=root,
        image_size=image_size,
        **tensors,
        defects=tuple(defect for _, defect, _ in files.test),
        train_names=tuple(p.relative_to(base / "train").as_posix() for p in files.train),
        test_names=tuple(p.relative_to(base / "test").as_posix() for p, _, _ in files.test),
    )


def read_image(path: Path) -> Image.Image:
    """One image file as 8-bit RGB, upright.

    Raises:
        ValueError: naming the file that cannot be read.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F":  # which PIL would cut to whole numbers: values in [0, 1] to black
                raise ValueError("it holds floating-point numbers; save it with 8 or 16 bits a channel")
            if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip rather than scale
                image = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A defect mask as an 8-bit image of 0 and 255: any value but 0 is defect.

    Args:
        path: the mask's file.
        size: (width, height) of its image.

    Raises:
        ValueError: naming the file that is unreadable, empty or of another size.
    """
    values = np.asarray(read_image(path)).max(2) > 0
    if values.shape[::-1] != size:
        actual, wanted = (f"{w}x{h}" for w, h in (values.shape[::-1], size))
        raise ValueError(f"{path} is {actual} but its image is {wanted}; a mask must have its image's size")
    if not values.any():
        raise ValueError(f"{path} marks no pixel; a defective image needs a mask, a good one belongs in test/good")
    return Image.fromarray(values.astype(np.uint8) * 255)


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


def _images(folder: Path) -> list[Path]:
    """Image files of a folder by name; hidden files and anything else are no images."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _decode(files: Files, image_size: int) -> dict[str, Tensor]:
    """Decode a whole category into train, test and masks."""

    def decode_test(entry: tuple[Path, str, Path | None]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A test image and its mask, empty for a good one."""
        path, defect, mask_path = entry
        image = read_image(path)
        if defect == "good" or mask_path is None:
            return resize(image, image_size), np.zeros((image_size, image_size), bool)
        mask = read_mask(mask_path, image.size).resize((image_size,) * 2, Image.Resampling.NEAREST)
        return resize(image, image_size), np.asarray(mask) > 0

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        train = list(pool.map(lambda path: resize(read_image(path), image_size), files.train))
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
