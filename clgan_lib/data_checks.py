"""A look at a data set before any training: what is there, what is missing, and what to do about it.

The official counts are those of MVTec AD's Table 1 (Bergmann et al., CVPR 2019), of VisA's split and of MPDD.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageSequence

from clgan_lib.data import SUFFIXES, Files, find_files, find_folder, meant_root
from clgan_lib.datasets import arrange
from clgan_lib.datasets import categories as list_categories
from clgan_lib.image_files import (
    mark,
    mask_files,
    named,
    read_mask,
    require_full_scale,
    shown,
    shrink_mask,
    upright_size,
    usual,
)

_WHERE = (
    "MVTec AD can be had from https://www.mvtec.com/company/research/datasets/mvtec-ad (CC BY-NC-SA 4.0, not for commercial "
    "use); unpack it so that data_root/bottle/train/good holds images. Without it, leave data_root empty: the embedded data "
    "is used instead."
)

# train good, test good, test defective
OFFICIAL = {
    "bottle": (209, 20, 63), "cable": (224, 58, 92), "capsule": (219, 23, 109),
    "carpet": (280, 28, 89), "grid": (264, 21, 57), "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92), "metal_nut": (220, 22, 93), "pill": (267, 26, 141),
    "screw": (320, 41, 119), "tile": (230, 33, 84), "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40), "wood": (247, 19, 60), "zipper": (240, 32, 119),
}  # fmt: skip
# VisA's one-class split, as in its split_csv/1cls.csv (Zou et al., ECCV 2022).
VISA = {
    "candle": (900, 100, 100), "capsules": (542, 60, 100), "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100), "fryum": (450, 50, 100), "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100), "pcb1": (904, 100, 100), "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100), "pcb4": (904, 101, 100), "pipe_fryum": (450, 50, 100),
}  # fmt: skip
# MPDD's Table (Jezek et al., ICUMT 2021).
MPDD = {
    "bracket_black": (289, 32, 47), "bracket_brown": (185, 26, 51), "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14), "metal_plate": (54, 26, 71), "tubes": (122, 32, 69),
}  # fmt: skip
EXPECTED = OFFICIAL | VISA | MPDD
_ELSEWHERE = "not read, move to train/good or test/<type> or ignore:"
_UNKNOWN = f"not read, convert to one of {', '.join(sorted(SUFFIXES))} or ignore:"
_OTHER = dict.fromkeys((".json", ".xml"), "annotations are not read, export them as PNG masks or ignore:")
_SIZE = 256  # of every evaluation
_STRETCHED = 1.2  # the largest ratio of width to height over the smallest that nobody minds


def check_dataset(root: str | Path, categories: Sequence[str] | None = None) -> pd.DataFrame:
    """Count what is there, beside what MVTec AD has, and try every file.

    Args:
        root: folder in a layout that `clgan_lib.datasets` knows.
        categories: which to check; all that are there by default.

    Returns:
        A row per category: ``category``, then ``train good``, ``test good`` and ``defective`` as "found / expected" (the
        expected number only for the categories of MVTec AD, VisA and MPDD), ``missing masks``, ``unreadable`` files, and
        ``advice`` in words, "ready" where there is nothing to do.

    Raises:
        FileNotFoundError: if the root is no folder or holds no category, saying where data can be had.
    """
    try:
        names = list(categories) if categories is not None else list_categories(root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {_WHERE}") from None
    if not names:
        raise FileNotFoundError(
            f"{root} holds no category (a folder with train/good in it){meant_root(root)}. {_WHERE}"
        )
    return pd.DataFrame([_check_category(Path(root), name) for name in names]).set_index("category")


def _check_category(root: Path, name: str) -> dict[str, object]:
    try:
        root = arrange(root, name)
        files = find_files(root, name)
    except (FileNotFoundError, ValueError) as error:
        return {"category": shown(name), "advice": str(error)}
    good = sum(defect == "good" for _, defect, _ in files.test)
    counts = (len(files.train), good, len(files.test) - good)
    expected = (
        None if (root / "clgan_synthetic.json").is_file() else EXPECTED.get(name)
    )  # the embedded data has no norm
    folder = find_folder(root, name)
    missing = [str(image.relative_to(root)) for image, defect, mask in files.test if defect != "good" and mask is None]
    paths = list(files.all())
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        unreadable = {path for path, whole in zip(paths, pool.map(_readable, paths), strict=True) if not whole}
    advice = []
    if missing:
        advice.append(f"add masks for {_some(missing)}")
    if unreadable:
        advice.append(f"replace {_some(sorted(str(path.relative_to(root)) for path in unreadable))}")
    faults, remarks = _check_masks(files, root, unreadable)
    remarks += _check_images(files, unreadable)
    advice += faults + _left_over(folder, files)
    if len(files.train) == 1:
        advice.append("add good images: of a single one none is left to calibrate on")
    try:
        require_full_scale(files.train)
    except ValueError as error:
        advice.append(str(error))
    if expected and counts != expected:
        advice.append("other counts than published: not comparable with published numbers")
    columns: dict[str, object] = {
        column: f"{count} / {wanted}" if expected else str(count)
        for column, count, wanted in zip(
            ("train good", "test good", "defective"), counts, expected or counts, strict=True
        )
    }
    columns |= {"missing masks": len(missing), "unreadable": len(unreadable)}
    return {"category": shown(name), **columns, "advice": "; ".join([*(advice or ["ready"]), *remarks])}


def _check_masks(files: Files, root: Path, unreadable: set[Path]) -> tuple[list[str], list[str]]:
    """What is wrong with masks that can be opened, and what is worth knowing about the others."""

    def look(entry: tuple[Path, str, Path | None]) -> tuple[str, dict[str, bool]]:
        """What is wrong with one mask, and remarks on it."""
        image, defect, mask = entry
        if defect == "good" or mask is None or unreadable.intersection((image, *mask_files(mask))):
            return "", {}
        try:
            size, orientation = upright_size(image)
            whole = read_mask(mask, size)
            erased = shrink_mask(whole, _SIZE)[1]
            return "", {
                "masks mark more than half of their image (is the defect black in them?)": np.asarray(whole).mean()
                > 255 / 2,
                "soft masks, cut at half their maximum": any(mark(file)[1] for file in mask_files(mask)),
                f"masks with regions that vanish at {_SIZE}x{_SIZE} but for their central pixel": erased > 0,
                "images turned by their EXIF tag Orientation (are their masks drawn on the turned image?)": orientation
                > 1,
            }
        except (ValueError, OSError) as error:
            return str(error).replace(f"{root}/", ""), {}

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(look, files.test))
    faults = [fault for fault, _ in looks if fault]
    marked: dict[str, list[str]] = {}
    for (image, _, _), (_, remarks) in zip(files.test, looks, strict=True):
        for remark in [remark for remark, true in remarks.items() if true]:
            marked.setdefault(remark, []).append(str(image.relative_to(root)))
    return [_some(faults)] * bool(faults), [f"{len(of)} {remark}: {_some(of)}" for remark, of in marked.items()]


def _check_images(files: Files, unreadable: set[Path]) -> list[str]:
    """What is worth knowing about images side by side: their shapes, and test images that are training images, too."""
    remarks = []
    images = [path for path in (*files.train, *(image for image, _, _ in files.test)) if path not in unreadable]
    pages = {path: _pages(path) for path in images}
    grey = sum(is_grey for _, is_grey in pages.values())
    if 0 < grey < len(images):
        remarks.append(f"{grey} images are grey and {len(images) - grey} in colour, are they of one camera?")
    shapes = [width / height for width, height in (upright_size(path)[0] for path in images)]
    if shapes and max(shapes) > _STRETCHED * min(shapes):
        remarks.append(f"images are {min(shapes):.2g} to {max(shapes):.2g} times as wide as high, all are made square")
    of_size = Counter(path.stat().st_size for path in images)
    contents = {p: hashlib.sha256(p.read_bytes()).digest() for p in images if of_size[p.stat().st_size] > 1}
    if several := [f"{path.parent.name}/{path.name}" for path in images if pages[path][0] > 1]:
        remarks.append(f"{len(several)} files hold several images, of which the first counts: {_some(several)}")
    trained = {contents[path] for path in files.train if path in contents}
    both = [f"{image.parent.name}/{image.name}" for image, _, _ in files.test if contents.get(image) in trained]
    return remarks + ([f"{len(both)} test images are training images, too: {_some(both)}"] if both else [])


def _pages(path: Path) -> tuple[int, bool]:
    """Images in a TIFF of the size of its first, and whether it is grey; smaller ones are previews, of other files views."""
    with Image.open(path) as image:
        grey = image.mode[0] in "1LI"
        sizes = [page.size for page in ImageSequence.Iterator(image)] if image.format == "TIFF" else [image.size]
        return sizes.count(sizes[0]), grey


def _left_over(folder: Path, files: Files) -> list[str]:
    """Advice on files that nothing reads: masks without an image, images elsewhere, annotations, and other formats."""
    used, left = set(files.all()), defaultdict[str, list[str]](list)
    for part, image in {"train": _ELSEWHERE, "test": _ELSEWHERE, "ground_truth": "no image has the mask"}.items():
        for path in sorted(named(folder, part).rglob("*")):
            if path not in used and path.is_file() and all(map(usual, path.relative_to(folder).parts)):
                words = image if path.suffix.lower() in SUFFIXES else _OTHER.get(path.suffix.lower(), _UNKNOWN)
                left[words].append(shown(path.relative_to(folder.parent).as_posix()))
    return [f"{words} {_some(names)}" for words, names in left.items()]


def _readable(path: Path) -> bool:
    """Whether a file is a whole image. Its pixels are decoded, coarsely, only where its format has no checksums."""
    try:
        with Image.open(path) as image:
            image.draft(None, (1, 1))  # a JPEG, at an eighth of its size
            image.verify() if image.format == "PNG" else image.load()
            return image.mode != "F" or "ground_truth" in path.parts  # see `clgan_lib.image_files.read_image`
    except Exception:  # whatever a damaged file provokes in a decoder
        return False


def _some(names: Sequence[str]) -> str:
    """The first three names, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
