"""Run folders without training: random products, random reconstructions, honestly computed numbers.

Everything in a fake `metrics.json` is summed up here in plain NumPy, so that a test can compare what the library makes
of it with a sum taken by other means. Only the dual threshold's masks are the library's own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.detection import detect, residual

CATEGORIES = ("bottle", "metal_nut")
SKILLS = {"clgan": 0.7, "template": 0.6, "udcae": 0.4}
DEFECTS = ("dent", "scratch", "flip")
ENVIRONMENT = {
    "python": "3.11.2", "torch": "2.15.0", "torchvision": "0.29.2", "numpy": "2.4.6", "opencv": "5.0.0", "device": "cpu",
    "device_name": "a test's imagination", "threads": 1, "platform": "test", "commit": "0123456789abcdef", "dirty": False,
}  # fmt: skip


def fake_experiment(root: Path) -> Path:
    """Three models on two categories with two seeds; `flip` is left out of metal_nut; udcae has a native detector."""
    for (model, skill), category, seed in itertools.product(SKILLS.items(), CATEGORIES, (0, 1)):
        left_out = ["flip"] if category == "metal_nut" else []
        fake_run(root, model, category, seed, skill=skill, left_out=left_out, native=model == "udcae")
    return root


def fake_run(
    root: Path,
    model: str = "clgan",
    category: str = "bottle",
    seed: int = 0,
    *,
    experiment: str = "fake",
    size: int = 32,
    skill: float = 0.7,
    left_out: Sequence[str] = (),
    native: bool = False,
    data_root: str = "",
    maps: bool = True,
    variant: str = "",
) -> Path:
    """Write one run folder in the format of `results/README` and return it; `skill` in [0, 1] is how much is restored."""
    rng = np.random.default_rng([seed, *map(ord, (variant or model) + category)])
    arrays = _arrays(np.random.default_rng([7, *map(ord, category)]), rng, size, skill)
    folder = root / experiment / (variant or model.replace(":", ".")) / category / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    threshold = float(np.quantile(arrays["holdout"], 0.99))
    pairs = zip(arrays["images"], arrays["reconstructions"], strict=True)
    found = {
        "dual_threshold": np.stack([detect(image, restored).mask for image, restored in pairs]),
        "calibrated": arrays["scores"] > threshold,
    }
    if native:
        found["native"] = arrays["native"] = arrays["scores"] > 1.5 * threshold
    if maps:
        np.savez(folder / "maps.npz", **arrays)
    scores = pd.concat([_scores(arrays, name, masks) for name, masks in found.items()])
    scores.to_csv(folder / "scores.csv", index=False)
    steps = np.arange(0, 1000, 50)
    history = {"step": steps, "images": 2 * steps, "seconds": steps / 10}
    for offset, term in enumerate(["D", "G_GAN", "NCE_X"]):
        history[term] = np.exp(-steps / 300) + 0.1 * rng.random(len(steps)) + offset
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    config = {"experiment": experiment, "model": model, "category": category, "seed": seed, "image_size": size}
    config |= {"data_root": data_root, "k": 3.0, "leave_out": list(left_out), "quantile": 0.99}
    config |= {"variant": variant} if variant else {}  # as runs from before there were variants
    config |= {"embedded_train": 4, "embedded_test": 8}  # little to draw where a figure asks for the data
    content = _metrics(arrays, scores, left_out) | {"config": config, "env": ENVIRONMENT, "fingerprint": f"{seed:064x}"}
    content["thresholds"] = {"calibrated": threshold, "quantile": 0.99}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def _arrays(product: np.random.Generator, chance: np.random.Generator, size: int, skill: float) -> dict[str, Any]:
    """Two good and nine defective images, three of a type, and what a model of this skill makes of them."""
    defects = np.array(["good", "good", *np.repeat(DEFECTS, 3)])
    names = np.array([f"{defect}/{index % 3:03d}.png" for index, defect in enumerate(defects)])
    y, x = np.mgrid[:size, :size] / size
    base = np.stack([0.5 + 0.2 * np.sin(8 * x), 0.4 + 0.2 * np.cos(6 * y), 0.3 + 0.2 * x * y], -1)
    good = np.clip(base + product.normal(0, 0.02, (len(defects), size, size, 3)), 0, 1)
    centre, radius = (
        product.uniform(0.3, 0.7, (len(defects), 2, 1, 1)),
        product.uniform(0.06, 0.25, (len(defects), 1, 1)),
    )
    masks = (x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 < radius**2
    masks[defects == "good"] = False
    images = np.where(masks[..., None], 1 - good, good)
    restored = np.where(masks[..., None], skill * good + (1 - skill) * images, images)
    restored = np.clip(restored + chance.normal(0, 0.03, good.shape), 0, 1)
    images, restored = np.round(255 * images).astype(np.uint8), np.round(255 * restored).astype(np.uint8)
    scores = np.stack([residual(a, b).mean(-1) for a, b in zip(images, restored, strict=True)])
    holdout = np.stack([residual(g, g + chance.normal(0, 0.03, g.shape)).mean(-1) for g in good[:4]])
    return {
        "images": images, "reconstructions": restored, "scores": scores.astype(np.float32), "masks": masks,
        "names": names, "defects": defects, "holdout": holdout.astype(np.float32),
    }  # fmt: skip


def _ratio(a: float, b: float) -> float:
    return 100 * a / b if b else 0.0


def percentages(tp: float, fp: float, fn: float, tn: float) -> dict[str, float]:
    """Eq. 11 to 15 of one image, as a schoolchild would do it."""
    p, r = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    f1 = 2 * p * r / (p + r) if p + r else 0.0
    return {"P": p, "R": r, "F1": f1, "IoU": _ratio(tp, tp + fp + fn), "ACC": _ratio(tp + tn, tp + fp + fn + tn)}


def _scores(arrays: dict[str, Any], postprocess: str, found: np.ndarray) -> pd.DataFrame:
    rows = []
    for i, name in enumerate(arrays["names"]):
        f, t = found[i], arrays["masks"][i]
        table = {"TP": (f & t).sum(), "FP": (f & ~t).sum(), "FN": (~f & t).sum(), "TN": (~f & ~t).sum()}
        row = {"name": name, "defect": arrays["defects"][i], "postprocess": postprocess, **table}
        rows.append(row | percentages(*map(float, table.values())) | {"image_score": arrays["scores"][i].max()})
    return pd.DataFrame(rows)


def averages(scores: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The three averagings of one post-processing's rows."""
    names = ["P", "R", "F1", "IoU", "ACC"]
    return {
        "image": scores.loc[scores["TP"] + scores["FN"] > 0, names].mean().to_dict(),
        "pooled": percentages(*map(float, scores[["TP", "FP", "FN", "TN"]].sum())),
        "all": scores[names].mean().to_dict(),
    }


def auroc(scores: np.ndarray, truths: np.ndarray) -> float:
    """The chance that a defective pixel scores above a good one: by ranks, ties counting half."""
    order = pd.Series(scores.ravel()).rank().to_numpy()
    n, m = truths.sum(), (~truths).sum()
    return float((order[truths.ravel()].sum() - n * (n + 1) / 2) / (n * m))


def _metrics(arrays: dict[str, Any], scores: pd.DataFrame, left_out: Sequence[str]) -> dict[str, Any]:
    kept = ~np.isin(arrays["defects"], left_out)
    blocks = []
    for keep in (kept, np.ones_like(kept)):
        rows = scores[scores["name"].isin(arrays["names"][keep])]
        ranking = {"AUROC": auroc(arrays["scores"][keep], arrays["masks"][keep]), "AP": 0.5}
        by_name = {name: averages(part) for name, part in rows.groupby("postprocess")}
        blocks.append({"scores": by_name, "ranking": ranking})
    defective = kept & arrays["masks"].any((1, 2))
    inside = arrays["scores"][defective][arrays["masks"][defective]].mean()
    outside = arrays["scores"][defective][~arrays["masks"][defective]].mean()
    return {
        "format": 1, **blocks[0], "left_out": list(left_out), "subsets": {"every type": blocks[1]} if left_out else {},
        "residual": {"inside": float(inside), "outside": float(outside)},
        "defects": {defect: {"images": int((arrays["defects"] == defect).sum())} for defect in DEFECTS},
        "images": {"train": 20, "holdout": 4, "test_good": 2, "test_defective": int(arrays["masks"].any((1, 2)).sum())},
        "time": {"train_s": 12.5, "images_seen": 2000, "steps": 1000, "images_per_s": 160.0, "evaluate_s": 1.0,
                 "peak_bytes": 2**29},
    }  # fmt: skip


def image_scores(folder: Path, left_out: str = "") -> dict[str, dict[str, float]]:
    """Per defective image P to ACC of the dual threshold, from the maps, pixel by pixel counts."""
    maps, found = np.load(folder / "maps.npz"), {}
    for i, name in enumerate(maps["names"]):
        if maps["defects"][i] not in ("good", left_out):
            mask, truth = detect(maps["images"][i], maps["reconstructions"][i]).mask, maps["masks"][i]
            pairs = list(zip(mask.ravel().tolist(), truth.ravel().tolist(), strict=True))
            found[str(name)] = percentages(*(pairs.count(p) for p in [(1, 1), (1, 0), (0, 1), (0, 0)]))
    return found
