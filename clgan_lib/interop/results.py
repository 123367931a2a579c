"""What an inspection leaves in its folder, and thresholds that move afterwards. `clgan threshold OUT`

The anomaly maps are kept, so that masks, overlays and verdicts follow another threshold without the model. An overlay is a
JPEG: as a PNG it took half the time of an inspection.
"""

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from tqdm.asyncio import tqdm as tqdm_of_terminals
from tqdm.auto import tqdm  # in a notebook another one

from clgan_lib.calibration import IMAGE_RATE, conformal_threshold, image_threshold
from clgan_lib.data import read_image
from clgan_lib.image_files import shown
from clgan_lib.interop.folders import filling, find_images
from clgan_lib.runs.folder import first_line, write_json

Sort = Literal["links", "copies"]
COLUMNS = ["name", "verdict", "image_score", "marked_percent", "mask", "overlay", "problem"]
VERDICTS = ("good", "defective", "unreadable")
_RED = (213, 94, 0)
_CONTOUR = ((0, 0, 0), (240, 228, 66))  # black and yellow lines, visible on any product
_SECONDS = 10  # between two lines where there is no terminal
_T = TypeVar("_T")


def progress(items: Iterable[_T], total: int, action: str) -> Iterator[_T]:
    """The items, one for each image, with a bar that has images a second and the time left; without a terminal, lines."""
    if tqdm is not tqdm_of_terminals or sys.stdout.isatty():
        yield from tqdm(items, action, total, file=sys.stdout, unit="image")
        return
    start = said = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= _SECONDS or count == total:
            said, rate = now, count / max(now - start, 1e-9)
            left = f"{rate:.3g} images/s, {(total - count) / rate:.0f} s left"
            print(f"{action}: {count} of {total} images, {left}", flush=True)


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for `count` images, which share torch's between them: one image a thread keeps them busier than one by one."""
    threads = torch.get_num_threads()
    share = max(1, threads // max(count, 1))
    pool = ThreadPoolExecutor(min(threads, max(count, 1)), initializer=torch.set_num_threads, initargs=(share,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what the threads set is also what later ones begin with


def map_file(mask: str) -> str:
    """The path of a kept map from that of its mask."""
    return str(Path("maps", *Path(mask).parts[1:]).with_suffix(".npy"))


def write_pictures(
    out: Path, name: str, image: Image.Image, scores: NDArray[np.floating], mask: NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    """Write the mask and the overlay of one image at its own size; its entries of the table.

    Args:
        out: folder to write to.
        name: of the mask, with folders.
        image: RGB.
        scores: its anomaly map, of any size.
        mask: of the map's size.
        threshold: on the map; red begins at half of it and is full at twice of it.
    """
    own = cv2.resize(mask.astype(np.uint8) * 255, image.size, interpolation=cv2.INTER_LINEAR) > 127  # linear: no steps
    written = {"mask": f"masks/{name}", "overlay": str(Path("overlays", name).with_suffix(".jpg"))}
    pictures = {"mask": own.astype(np.uint8) * 255, "overlay": _overlay(image, scores, own, threshold)}
    options: dict[str, dict[str, Any]] = {
        "mask": {"compress_level": 1},
        "overlay": {"quality": 90, "subsampling": 0},
    }  # lines keep their colour
    for key, path in written.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[key]).save(out / path, **options[key])
    return {"marked_percent": 100 * float(own.mean()), **written}


def _overlay(
    image: Image.Image, scores: NDArray[np.floating], mask: NDArray[np.bool_], threshold: float
) -> NDArray[np.uint8]:
    """The image, redder where scores are higher, with the contour of the mask; uint8 ``(H, W, 3)``."""
    weight = 0.55 * np.clip((scores.astype(np.float32) / max(threshold, 1e-9) - 0.5) / 1.5, 0, 1)
    weight = cv2.resize(weight, image.size, interpolation=cv2.INTER_LINEAR)
    pixels = np.asarray(image)
    pixels = np.asarray(cv2.blendLinear(pixels, np.full_like(pixels, _RED), 1 - weight, weight), np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thin = max(1, round(min(image.size) / 200))
    for colour, width in zip(_CONTOUR, (2 * thin + 1, thin), strict=True):
        cv2.drawContours(pixels, contours, -1, colour, width, cv2.LINE_AA)
    return pixels


def finish(part: Path, out: Path, images: Path, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Write the table, the summary with its counts, the gallery, and sorted images where the summary asks for them."""
    counts = table["verdict"].value_counts()
    summary |= {verdict: int(counts.get(verdict, 0)) for verdict in VERDICTS}
    table.to_csv(part / "scores.csv", index=False)
    files = named_images(images) if summary["sorted"] else {}
    for row in table.to_dict("records") if files else ():
        target = part / "sorted" / row["verdict"] / files[row["name"]].relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        if summary["sorted"] == "links":
            target.symlink_to(files[row["name"]].resolve())
        else:
            shutil.copyfile(files[row["name"]], target)
    rows = table.sort_values("image_score", ascending=False).to_dict("records")
    scores = table["image_score"].dropna()
    ends = [*scores, summary["image_threshold"]]
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("gallery.html.j2").render(
        summary=summary, out=out.name, folder=shlex.quote(out.name), low=min(ends), high=max(ends),
        shown=[row for row in rows if isinstance(row["overlay"], str)],
        problems=[row for row in rows if isinstance(row["problem"], str)],
    )  # fmt: skip
    (part / "gallery.html").write_text(page, encoding="utf8")
    write_json(part / "inspection.json", summary)


def image_rule(maxima: Sequence[float], rate: float | None = None) -> tuple[float, str]:
    """The threshold of an image and how it was chosen, in words, from the largest scores of held-out good images.

    With a `rate` by `conformal_threshold`, else by `image_threshold`.
    """
    if rate is not None:
        words = (
            f"exceeded by at most {rate:g} of good images, a split-conformal quantile of {len(maxima)} held-out ones"
        )
        return conformal_threshold(maxima, rate), words
    words = f"exceeded by {IMAGE_RATE:.0%} of good images, by a Gumbel fit to {len(maxima)} held-out ones"
    words = words if len(maxima) > 2 else f"the highest score in {len(maxima)} held-out good images"
    return image_threshold(maxima), words


def named_images(images: Path) -> dict[str, Path]:
    """The images of a folder by their names in ``scores.csv``."""
    return {shown(path.relative_to(images).as_posix()): path for path in find_images(images)[0]}


def move_thresholds(
    out: str | Path,
    *,
    pixel: float | None = None,
    image: float | None = None,
    rate: float | None = None,
    images: str | Path = "",
) -> pd.DataFrame:
    """Other thresholds for the results of an inspection; masks, overlays, verdicts and the rest follow, without the model.

    Args:
        out: folder that `clgan_lib.interop.inspection.inspect_folder` wrote.
        pixel: threshold on the maps, of the masks; None leaves masks and overlays as they are.
        image: an image whose largest score is higher is called defective.
        rate: choose that one by `conformal_threshold` instead.
        images: where the inspected images are now; empty: where they were, seen from `out`.

    Returns:
        The rows of ``scores.csv``.

    Raises:
        FileNotFoundError: if there are no results, or an image is gone.
        ValueError: if nothing is to be moved, or the results do not allow it.
        OSError: if `out` cannot be written.
    """
    out = Path(out)
    summary, table = _read(out)
    images = Path(images or out / summary["images"])
    if pixel is None and image is None and rate is None:
        raise ValueError("no threshold to move; give --pixel-threshold, --image-threshold or --rate")
    if pixel is not None and summary["detector"] not in ("auto", "calibrated"):
        raise ValueError(f"detector {summary['detector']!r} has no threshold on the map; inspect with another one")
    if rate is not None:
        image, rule = image_rule(summary["good_scores"], rate)
    else:
        rule = summary["image_rule"] if image is None else "moved by hand"
    moved = {"threshold": pixel, "image_threshold": image, "image_rule": rule}
    summary |= {name: value for name, value in moved.items() if value is not None}
    files = named_images(images) if pixel is not None or summary["sorted"] else {}
    if missing := [name for name in table["name"] if files and name not in files]:
        raise FileNotFoundError(f"{images} holds no {missing[0]} any more; name the folder of the images with --images")
    judged = table["image_score"].notna()
    verdicts = np.where(table["image_score"] > summary["image_threshold"], "defective", "good")
    table["verdict"] = table["verdict"].where(~judged, verdicts)
    with filling(out) as part:
        for folder in ("maps", *(("masks", "overlays") if pixel is None else ())):
            if (out / folder).is_dir():
                shutil.copytree(out / folder, part / folder, copy_function=_link)
        if pixel is not None:
            _repaint(part, table, files, summary)
        finish(part, out.resolve(), images, table, summary)
    return table


def _read(out: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Summary and table of an inspection.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file that is damaged or of another version.
    """
    for file in (out / "inspection.json", out / "scores.csv"):
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; name a folder that clgan inspect wrote")
    try:
        summary = json.loads((out / "inspection.json").read_text(encoding="utf8"))
        for name in ("threshold", "image_threshold", "image_rule", "good_scores", "images", "detector", "sorted"):
            summary[name]
        text = dict.fromkeys(("name", "verdict", "mask", "overlay", "problem"), "str")
        table = pd.read_csv(out / "scores.csv", dtype=text)[COLUMNS]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out} is damaged or of another version ({first_line(error)}); inspect again") from None
    return summary, table


def _link(source: str, target: str) -> None:
    """The file once more: a link where the disk has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _repaint(part: Path, table: pd.DataFrame, files: dict[str, Path], summary: dict[str, Any]) -> None:
    """Write masks and overlays again from the maps in `part`, and their entries of the table."""
    marked = table[table["mask"].notna()]

    def repaint(name: str, mask: str) -> dict[str, Any]:
        """One image."""
        image = read_image(files[name], summary["bit_depth"])
        scores = np.load(part / map_file(mask), allow_pickle=False)
        level, name = summary["threshold"], str(Path(mask).relative_to("masks"))
        return write_pictures(part, name, image, scores, scores.astype(np.float32) > level, level)

    with workers(len(marked)) as pool:
        done = progress(pool.map(repaint, marked["name"], marked["mask"]), len(marked), "drawing")
        table.loc[marked.index, "marked_percent"] = [entries["marked_percent"] for entries in done]
