"""Image and mask files as people have them: listed by name, read upright, each by one rule.

A mask's defect is any value but 0, at any number of bits. A mask with more than 16 levels, or in a lossy format, is soft and
cut at half its maximum. What is transparent is no defect; where all that is opaque has one colour, alpha is the mask.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Image.MAX_IMAGE_PIXELS = 2**29  # PIL refuses twice as many; its own limit is below a line-scan camera's 16384 x 16384
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_LITTER = {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot", "$recycle.bin", "__macosx",
           "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # fmt: skip
_LEVELS = 16  # a mask of labels has no more, a soft one has
_ORIENTATION = 0x0112  # tags of EXIF and TIFF
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 256, 257, 258, 262, 284, 339
_TURNS = dict(
    enumerate("FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split(), 2)
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # line breaks, tabs and what moves a terminal's cursor


def name_key(name: str) -> str:
    """A name as it is compared: without regard to case, blanks at its ends and how accents are stored (NFC or NFD)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip(" .")


def shown(path: object) -> str:
    r"""A name in one line that any file and terminal can hold, with escapes as ``\xbb`` (not UTF-8) and ``\n``."""
    text = os.fsencode(str(path)).decode("utf8", "backslashreplace")
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def usual(name: str) -> bool:
    """Whether a file is a user's own: neither hidden nor left behind by file servers and desktops."""
    return name[0] != "." and name.lower() not in _LITTER


def named(folder: Path, name: str) -> Path:
    """The entry of a folder that has this name, else the only one that `name_key` takes for it, else none that exists."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    alike = [path for path in folder.iterdir() if name_key(path.name) == name_key(name)]
    return alike[0] if len(alike) == 1 else exact


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files and what file servers and desktops leave behind.

    Raises:
        ValueError: naming the entry whose name no table could hold: it is not UTF-8, or has a line break or tab.
    """
    files = sorted(path for path in folder.iterdir() if usual(path.name)) if folder.is_dir() else []
    for path in files:
        if shown(path.name) != path.name:
            control, convert = "holds a line break, a tab or the like", " (convmv -f gbk -t utf8, or as it was made)"
            why, how = (control, "") if _CONTROL.search(path.name) else ("is not UTF-8", convert)
            raise ValueError(f"{shown(path)}: its name {why}; rename it{how}")
    return files


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder by name; none if it does not exist.

    Raises:
        ValueError: as `entries`.
    """
    return [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]


@dataclass(frozen=True)
class _Raw:
    """An upright image, and where it has more than 8 bits a channel, its numbers ``(H, W)`` or ``(H, W, 3 or 4)``."""

    image: Image.Image
    lossy: bool
    deep: NDArray[np.int64] | None = None
    bits: int = 8
    min_is_white: bool = False


def _is_deep(opened: Image.Image) -> bool:
    """Whether PIL would cut the channels to 8 bits, or keeps them as numbers of more."""
    bits = max(getattr(opened, "tag_v2", {}).get(_BITS, (8,)))
    return opened.mode != "F" and (bits > 8 or opened.mode[0] == "I" or ";16" in str(getattr(opened, "tile", "")))


def _read(path: Path) -> _Raw:
    with path.open("rb") as file, Image.open(file) as opened:  # by name, PIL maps a turned TIFF in the wrong shape
        deep, tags, turned = _is_deep(opened), getattr(opened, "tag_v2", {}), opened.getexif().get(_ORIENTATION, 1) != 1
        opened.load()  # a TIFF is upright then, and has no such tag any more
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
        image, lossy = opened.transpose(Image.Transpose[turn]) if turn else opened, opened.format == "JPEG"
        if not deep:
            return _Raw(image, lossy)
        if not image.mode.startswith("I"):  # colour, of which PIL keeps the upper 8 bits
            if tags.get(_PLANAR) == 2 and turned:
                raise ValueError("it is turned by a tag and holds its channels in planes; save it upright")
            if tags.get(_PLANAR) == 2:  # OpenCV would mix up the channels
                return _Raw(image, lossy, np.moveaxis(tifffile.imread(path, key=0), 0, 2).astype(np.int64), 16)
            values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
            if values is None or values.ndim != 3 or turned:
                return _Raw(image, lossy)
            return _Raw(image, lossy, values[..., [2, 1, 0, *range(3, values.shape[2])]].astype(np.int64), 16)
        bits, signed = int((tags.get(_BITS) or (16,))[0]), (tags.get(_SAMPLE_FORMAT) or (1,))[0] == 2
        whole = np.asarray(image).astype(np.int64)
        values = whole if signed else whole & (2**bits - 1)  # PIL opens uint32 as int32
        return _Raw(image, lossy, values, bits - signed, tags.get(_PHOTOMETRIC) == 0)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a decoder raises into a ValueError in one line that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on a damaged file
        why = str(error)
        if isinstance(error, Image.DecompressionBombError):
            why = "it has more than a billion pixels; cut it into tiles"
        elif isinstance(error, UnidentifiedImageError):
            why = "it holds none of a known format"
            with suppress(OSError, ValueError), tifffile.TiffFile(path) as file:
                page = file.pages.first
                why = f"it holds {page.samplesperpixel} channels of {page.dtype}; save it in grey or RGB, 8 or 16 bits each"
        raise ValueError(f"{shown(path)} cannot be read as an image ({why}); replace or remove it") from error


def read_image(path: Path, bit_depth: int = 0) -> Image.Image:
    """One image file as 8-bit RGB, upright.

    Args:
        path: the file.
        bit_depth: of the numbers in a file of more than 8 bits a channel, such as 12; 0 for all bits that it has.

    Raises:
        ValueError: naming the file that cannot be read.
    """
    with _reading(path):
        raw = _read(path)
        if raw.image.mode == "F":  # which PIL would cut to whole numbers: values in [0, 1] to black
            raise ValueError("it holds floating-point numbers; save it with 8 or 16 bits a channel")
        if raw.deep is None:
            return raw.image.convert("RGB")
        values, top = raw.deep if raw.deep.ndim == 2 else raw.deep[..., :3], 2 ** (bit_depth or raw.bits) - 1
        if values.min() < 0 or values.max() > top:
            raise ValueError(f"its values are {values.min()} to {values.max()}, not 0 to {top}; see bit_depth")
        scaled = (top - values if raw.min_is_white else values) * 255 / top
        return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def require_full_scale(paths: Iterable[Path]) -> None:
    """Refuse a set of images of which none reaches a quarter of what its bits can hold: it would be almost black.

    Raises:
        ValueError: naming the first of them, and the bit depth that would do.
    """
    first, peak = None, 0
    for path in paths:
        with suppress(ValueError), _reading(path), Image.open(path) as opened:  # of others, decoding says more
            if _is_deep(opened) and (raw := _read(path)).deep is not None:
                first, peak = first or (path, raw.bits), max(peak, int(raw.deep.max()))
                if peak >= 2**raw.bits // 4:
                    return
    if first:
        enough = next(depth for depth in (8, 10, 12, 14, 16, 24, 32) if peak < 2**depth)
        raise ValueError(
            f"{first[0]} has {first[1]} bits, but no value of it and its set exceeds {peak}; give the bit depth of the "
            f"camera, bit_depth={enough}, or {first[1]} if the images are that dark"
        )


def read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A defect mask as an 8-bit image of 0 and 255, by the rules at the top of this module.

    Args:
        path: the mask's file, or a folder of files, which are united.
        size: (width, height) of its image.

    Raises:
        ValueError: naming the file that is unreadable, ambiguous, empty or of another size.
    """
    marked = np.zeros(size[::-1], bool)
    for file in mask_files(path):
        defect = mark(file)[0]
        if defect.shape[::-1] != size:
            actual, wanted = (f"{w}x{h}" for w, h in (defect.shape[::-1], size))
            turned = "; it is transposed, or EXIF turns its image" if defect.shape == size else ""
            raise ValueError(f"{file} is {actual} but its image is {wanted}; a mask must have its image's size{turned}")
        marked |= defect
    if not marked.any():
        raise ValueError(f"{path} marks no pixel; a defective image needs a mask, a good one belongs in test/good")
    return Image.fromarray(marked.astype(np.uint8) * 255)


def mask_files(path: Path) -> list[Path]:
    """The files of one image's mask: itself, or those in its folder."""
    return list_images(path) if path.is_dir() and path.suffix.lower() not in SUFFIXES else [path]


def mark(path: Path) -> tuple[NDArray[np.bool_], bool]:
    """Where one mask file has a defect, bool ``(H, W)``, and whether the mask is soft.

    Raises:
        ValueError: naming the file that is unreadable, or whose palette and labels disagree.
    """
    with _reading(path):
        raw = _read(path)
        values = _mask_values(raw)
    small = values.dtype == np.uint8
    levels = np.count_nonzero(np.bincount(values.ravel())) if small else len(np.unique(values))
    soft = bool(levels > (2 if raw.lossy else _LEVELS))
    return np.asarray(values >= values.max() / 2 if soft else values > 0), soft


def _mask_values(raw: _Raw) -> NDArray:
    """The numbers of a mask, ``(H, W)``, 0 where it is transparent."""
    image = raw.image
    if image.mode == "F":
        values = np.abs(np.asarray(image))
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite numbers")
        return values
    if raw.deep is not None and raw.deep.ndim == 2:
        return 2**raw.bits - 1 - raw.deep if raw.min_is_white else np.abs(raw.deep)
    transparent = image.has_transparency_data
    pixels = np.asarray(image.convert("RGBA" if transparent else "RGB")) if raw.deep is None else raw.deep
    colour = pixels[..., :3].max(2)
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else np.ones_like(colour)
    if alpha.min() < alpha.max():
        opaque = colour[alpha > 0]
        return alpha if (opaque == opaque[0]).all() else np.where(alpha > 0, colour, 0)
    if image.mode == "P" and ((np.asarray(image) == 0) != (colour == 0)).any():
        raise ValueError("its palette has another colour than black first; save it in grey, defect 255 and the rest 0")
    return colour if alpha.max() else alpha


def shrink_mask(mask: Image.Image, image_size: int) -> tuple[NDArray[np.bool_], int]:
    """A mask at S x S by nearest neighbour, where a region that this would erase keeps its central pixel.

    Returns:
        bool ``(S, S)``, and the number of such regions (8-connected).
    """
    square = (image_size, image_size)
    if mask.size == square:
        return np.asarray(mask) > 0, 0
    count, labels, boxes, centres = cv2.connectedComponentsWithStats(np.asarray(mask), connectivity=8)
    small = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(square, Image.Resampling.NEAREST))
    erased = np.setdiff1d(np.arange(1, count), small)
    marked = small > 0
    for region in erased:
        left, top, width, height = boxes[region, :4]
        places = np.argwhere(labels[top : top + height, left : left + width] == region) + (top, left)
        y, x = places[np.hypot(*(places - centres[region][::-1]).T).argmin()]
        marked[y * image_size // mask.height, x * image_size // mask.width] = True
    return marked, len(erased)


def upright_size(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of an image once it is upright, and its EXIF tag Orientation; 1 where it is not turned.

    Raises:
        ValueError: naming the file that cannot be read.
    """
    with _reading(path), Image.open(path) as opened:
        orientation, tags = opened.getexif().get(_ORIENTATION, 1), getattr(opened, "tag_v2", {})
        width, height = tags.get(_WIDTH, opened.width), tags.get(_HEIGHT, opened.height)  # PIL turns a TIFF's own size
        return ((height, width) if orientation in (5, 6, 7, 8) else (width, height)), orientation
