"""Data sets beyond MVTec AD, in the layouts they are published in.

* **MVTec AD**, and **MPDD** in the same layout: see `clgan_lib.data`. MPDD: Jezek, Jonak, Burget, Dvorak, Skotak, "Deep
  learning-based defect detection of metal parts", ICUMT 2021.
* **MVTec AD 2**: ``<category>/train/good``, ``validation/good``, ``test_public/{good,bad,ground_truth/bad}`` with masks
  ``NNN_<light>_mask.png``, and ``test_private``, ``test_private_mixed`` whose truth only MVTec's server has. Scored is
  test_public. Its SegF1 is the F1 of all pixels pooled, our average ``pooled``. Heckler-Kram, Neudeck, Scheler, König,
  Steger, "The MVTec AD 2 Dataset", arXiv:2503.21622.
* **VisA**: ``<category>/Data/Images/{Normal,Anomaly}``, ``Data/Masks/Anomaly``, and the split in ``split_csv/1cls.csv``
  (object, split, label, image, mask). Zou, Jeong, Pemula, Zhang, Dabeer, "SPot-the-Difference Self-supervised
  Pre-training for Anomaly Detection and Segmentation", ECCV 2022.

A data set in another layout than MVTec AD's is not copied: a tree of links in that layout is made in the cache, once.
"""

import csv
import hashlib
import os
import shutil
from contextlib import suppress
from functools import reduce
from pathlib import Path, PurePosixPath

from clgan_lib.data import list_categories
from clgan_lib.image_files import list_images, name_key, named
from clgan_lib.paths import CACHE, safe_name

_SPLIT = PurePosixPath("split_csv/1cls.csv")


def categories(root: str | Path) -> list[str]:
    """Names of the categories under a data root, in whichever layout.

    Raises:
        FileNotFoundError: if `root` is no folder.
    """
    names = list_categories(root)
    return sorted({*names, *(p.parent.name for p in Path(root).glob("*/Data") if p.is_dir())})


def recognise(root: str | Path, category: str) -> str:
    """``"mvtec_ad"``, ``"mvtec_ad_2"`` or ``"visa"``; the first also where the loader has to explain what is missing."""
    root = Path(root)
    folder = named(root, safe_name(category, "category"))
    if (folder / "test_public").is_dir():
        return "mvtec_ad_2"
    return "visa" if (folder / "Data").is_dir() else "mvtec_ad"


def arrange(root: str | Path, category: str) -> Path:
    """A data root that holds this category in MVTec AD's layout: `root` itself, or a tree of links in the cache.

    Raises:
        FileNotFoundError: naming the file that the layout asks for and is missing.
        ValueError: naming the line of VisA's split that cannot be.
    """
    root, layout = Path(root), recognise(root, category)
    if layout == "mvtec_ad":
        return root
    files = (_mvtec_ad_2 if layout == "mvtec_ad_2" else _visa)(root.resolve(), category)
    listing = "\n".join(f"{place}\t{file}" for place, file in sorted(files.items()))
    made = CACHE / "layouts" / f"{root.name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    if not (made / category).is_dir():
        part = made.with_name(f"{made.name}.{os.getpid()}.part")
        for place, file in files.items():
            (part / category / place).parent.mkdir(parents=True, exist_ok=True)
            try:
                (part / category / place).symlink_to(file)
            except OSError:  # the system allows no links
                shutil.copyfile(file, part / category / place)
        made.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # another run was faster
            (part / category).rename(made / category)
        shutil.rmtree(part, ignore_errors=True)
    return made


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; this layout needs it, unpack the data set whole")
    return list_images(folder)


def _mvtec_ad_2(root: Path, category: str) -> dict[str, Path]:
    """Where each file stands in MVTec AD's layout; ``validation`` is not used, private images have no truth."""
    folder = named(root, category)
    files = {f"train/good/{p.name}": p for p in _images(folder / "train" / "good")}
    for defect in ("good", "bad"):
        files |= {f"test/{defect}/{p.name}": p for p in _images(folder / "test_public" / defect)}
    masks = _images(folder / "test_public" / "ground_truth" / "bad")
    return files | {f"ground_truth/bad/{p.name}": p for p in masks}


def _visa(root: Path, category: str) -> dict[str, Path]:
    """Where each file of VisA's one-class split stands in MVTec AD's layout."""
    split = root / _SPLIT
    if not split.is_file():
        raise FileNotFoundError(f"{split} does not exist; VisA's split is in it, unpack the data set whole")
    files: dict[str, Path] = {}
    with split.open(encoding="utf-8-sig", newline="") as file:  # a spreadsheet begins UTF-8 with a mark
        reader = csv.DictReader(file)
        if missing := {"object", "split", "label", "image", "mask"} - set(reader.fieldnames or ()):
            raise ValueError(f"{split}: no column {', '.join(sorted(missing))}; separate columns by commas")
        for number, row in enumerate(reader, start=2):
            if name_key(row.get("object") or "") != name_key(category):
                continue
            defect = {"normal": "good", "anomaly": "bad"}.get(str(row.get("label")))
            if row.get("split") not in ("train", "test") or defect is None or not row.get("image"):
                raise ValueError(
                    f"{split}, line {number}: expected object,split,label,image,mask, got {list(row.values())}"
                )
            image = _inside(root, str(row["image"]), f"{split}, line {number}")
            place = f"{row['split']}/{defect}/{image.name}"
            if files.setdefault(place, image) != image:
                raise ValueError(f"{split}, line {number}: {image} is called as {files[place]}; rename one of them")
            if row.get("mask"):
                mask = _inside(root, str(row["mask"]), f"{split}, line {number}")
                files[f"ground_truth/{defect}/{image.stem}_mask{mask.suffix}"] = mask
    if not files:
        raise FileNotFoundError(f"{split} names no image of {category!r}; choose one of its objects")
    return files


def _inside(root: Path, name: str, where: str) -> Path:
    path = reduce(named, PurePosixPath(name.replace("\\", "/")).parts, root).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"{where}: {name} leads out of the data root")
    if not path.is_file():
        raise FileNotFoundError(f"{where}: {path} does not exist; unpack the data set whole")
    return path
