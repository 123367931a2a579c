"""Training on a plain folder of good images, without defects, masks or a test set."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clgan_lib.data import Category, read_image, resize
from clgan_lib.image_files import require_full_scale
from clgan_lib.interop.folders import find_images, say_left_out
from clgan_lib.interop.readiness import FILE, assess
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, calibrate
from clgan_lib.runs.folder import claim, computing, refuse_other_data, write_json, writing
from clgan_lib.runs.weights import write_weights
from clgan_lib.training import Progress, set_threads

DEFAULTS: dict[str, Any] = {
    "experiment": "own",
    "model": "clgan_rc",
    "image_size": 128,
    "budget": 10_000,  # images: about 20 minutes on two cores
    "symmetry": "none",
}
_LAYOUT = ("good", "ok", "train")  # folders that are not named after a product


def learn_folder(good: str | Path, **settings: Any) -> Path:
    """Train on good images alone; every seventh is held out for calibration.

    Started again after an interruption, it continues from its checkpoint.

    Args:
        good: folder of good images, searched with all folders under it; or one product in MVTec AD's layout, whose
            ``train/good`` is taken.
        settings: fields of `RunConfig`, before `DEFAULTS`: the restoring variant that detects best. The category is the
            folder's name, or the product's in ``product/train/good``. Only you know the ``symmetry``.

    Returns:
        The run folder. An inspection needs its ``weights.safetensors``; ``readiness.json`` says if they are fit for use.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: naming the impossible setting, the file that cannot be read, or what is wrong with the folder.
        FileExistsError: if the run folder holds a model of other images.
        OSError: if the run folder cannot be written.
    """
    folder = Path(good).resolve()
    product = next((name for name in reversed(folder.parts) if name not in _LAYOUT), folder.name)
    config = RunConfig(**{**DEFAULTS, "category": product, "data_root": str(folder), **settings})
    set_threads(config.threads)
    refuse_other_data(config)
    model = execution.fresh_model(config)
    category, small = _load(folder, config)
    held_out = execution.hold_out(config, len(small))
    lock = claim(config.folder)
    run = execution.Run(config, category, small[~held_out], category.train[held_out], model, Progress(), lock)
    try:
        execution.train_run(run)
        with writing(config.folder, execution.AGAIN), computing(config):
            readiness = assess(run.model, run.holdout, config.quantile)
            maps, threshold = calibrate(run.model, run.holdout, config.quantile)
            write_weights(config.folder / "weights.safetensors", run.model, execution.card(run, maps, threshold))
            done = run.progress  # of no image, for a control
            lacking = max(0.0, DEFAULTS["budget"] - done.images) * done.seconds / max(done.images, 1)
            readiness = replace(readiness, lacking=lacking, threshold=threshold)
            write_json(config.folder / FILE, {"fit": readiness.fit, "summary": str(readiness), **asdict(readiness)})
            execution.drop_checkpoint(config.folder)
    finally:
        lock.release()
    return config.folder


def _load(folder: Path, config: RunConfig) -> tuple[Category, torch.Tensor]:
    """The good images as a category without test images, and at the size of training, uint8 ``(N, 3, S, S)``."""
    if (folder / "train" / "good").is_dir():
        folder = folder / "train" / "good"
    if product := next(folder.glob("*/train/good"), None):
        raise ValueError(f"{folder} holds several products; name one of them, such as {product.parents[1]}")
    paths, others = find_images(folder)
    say_left_out(others)
    require_full_scale(() if config.bit_depth else paths)
    large, small = [], []
    for path in paths:
        image = read_image(path, config.bit_depth)
        large.append(resize(image, SIZE))
        small.append(resize(image, config.image_size))
    train, resized = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() for images in (large, small))
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    nothing = train[:0]
    return Category(config.category, folder, SIZE, train, nothing, nothing[:, 0] > 0, (), names, ()), resized
