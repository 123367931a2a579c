"""What one sees in an experiment, in sentences: the best method, its gain over the control, where CLGAN stands and why.

Every number is computed from the tidy rows of `run_table.collect`; the conditions that choose a sentence are the
constants below. A method that lacks a run is never ranked.
"""

import numpy as np
import pandas as pd

from clgan_lib.exhibits.run_table import CONTROLS, display, is_mvtec, select, with_gain
from clgan_lib.runs.config import EMBEDDED

UNLIKE = 10.0  # residual outside the defects, percent of the range: above it colours or shapes of the product are wrong
STANDS_OUT = 2.0  # residual inside the defects over that outside: below it a threshold has little to separate
COPIED = 5.0  # residual inside the defects, percent of the range: below it, defects are reconstructed, too
EARLY_IMAGES = 1000  # a training shorter than this is called early
EARLY = " That is early in its training: the shape of the product comes first, its colours and fine patterns later."
CHANCE = 0.6  # AUROC below this ranks pixels little better than chance, which is 0.5
NEXT = 3  # proposals shown at most


def own_threshold(frame: pd.DataFrame) -> pd.DataFrame:
    """Each model under its own label-free threshold: the native one where the method has one, else the calibrated one.

    No test label takes part in the choice. Rows as of `select`, ``rule`` naming the threshold, "" where there is none, and
    ``gain`` over the template's own one.
    """
    by_rule = {rule: select(frame, rule) for rule in ("native", "calibrated")}
    chosen = []
    for model in frame["model"].unique():
        parts = [rows[rows["model"] == model].assign(rule=rule) for rule, rows in by_rule.items()]
        there = [part for part in parts if part["F1"].notna().any()]
        chosen.append(there[0] if there else parts[-1].assign(rule=""))
    rows = pd.concat(chosen, ignore_index=True)
    return with_gain(rows.assign(postprocess="own", finished=rows["finished"].astype(bool)))


def model_means(rows: pd.DataFrame, column: str) -> pd.Series:
    """Mean over categories of the means over seeds, by model; NaN for a model that lacks a run or the number."""
    values = pd.to_numeric(rows[column], errors="coerce").groupby([rows["model"], rows["category"]], sort=False)
    by_category = values.agg(lambda part: part.mean(skipna=False))
    return by_category.groupby(level=0, sort=False).agg(lambda part: part.mean(skipna=False))


def findings(frame: pd.DataFrame, published: pd.DataFrame | None = None) -> list[str]:
    """The paragraphs that open a report, at most four: what was compared, the best, CLGAN, what to run next.

    `published` is the paper's Table 3; it is quoted for CLGAN on real MVTec AD alone.
    """
    paper, own = select(frame), own_threshold(frame)
    best = [_best(own, "each method's own label-free threshold,"), _best(paper, "the paper's detector,")]
    paragraphs = [_setting(paper), " ".join(best), _clgan(paper, published), _next(paper)]
    return [text for text in paragraphs if text]


def _setting(paper: pd.DataFrame) -> str:
    """What was compared, on what, and what is missing."""
    models, categories, seeds = (paper[name].nunique() for name in ("model", "category", "seed"))
    controls = sorted(set(paper["model"]) & set(CONTROLS))
    aside = f", {len(controls)} of them without learning ({', '.join(controls)})," if controls else ""
    known = {EMBEDDED: "the embedded, synthetic data"}
    names = ["MVTec AD" if is_mvtec(name) else known.get(name, name) for name in paper["data"].dropna().unique()]
    text = (
        f"This page compares {_count(models, 'method')}{aside} on {_count(categories, 'category')} of "
        f"{' and '.join(names) or 'unknown data'}, {_count(seeds, 'seed')} each. A method sees good images only, "
        "reconstructs a test image, and marks as defective what it reconstructs differently."
    )
    if missing := int((~paper["finished"].astype(bool)).sum()):
        verb = "is" if missing == 1 else "are"
        text += f" {missing} of {len(paper)} runs {verb} missing; a method that lacks one is not ranked."
    return text


def _best(rows: pd.DataFrame, rule: str) -> str:
    """The best method under one threshold, and its distance from the control `template`."""
    f1 = model_means(rows, "F1").dropna()
    if f1.empty:
        return f"Under {rule} no method has a mean F1 yet."
    best, learned = str(f1.idxmax()), f1.drop(list(CONTROLS), errors="ignore")
    name = display(best) + (f" ({rows.loc[rows['model'] == best, 'rule'].iloc[0]})" if "rule" in rows else "")
    has = f"has a mean F1 of {f1[best]:.1f} %."
    if len(f1) == 1:
        return f"Under {rule} {name} {has}"
    if best in CONTROLS:
        trained = (
            f" The best trained, {display(str(learned.idxmax()))}, has {learned.max():.1f} %." if len(learned) else ""
        )
        return f"Under {rule} no trained method beats the controls: {name}, which learns nothing, {has}{trained}"
    gain = f1[best] - f1.get("template", np.nan)
    above = f", {gain:.1f} points above the control template, which learns nothing" if np.isfinite(gain) else ""
    return f"Under {rule} {name} is best: its mean F1 is {f1[best]:.1f} %{above}."


def _clgan(paper: pd.DataFrame, published: pd.DataFrame | None) -> str:
    """Where the paper's method stands, and what its residuals say of the reason."""
    f1 = model_means(paper, "F1").dropna()
    if "clgan" not in f1:
        return ""
    mine = paper[paper["model"] == "clgan"]
    auroc, seen = (model_means(mine, name).get("clgan", np.nan) for name in ("AUROC", "images_seen"))
    place = f" is number {int((f1 > f1['clgan']).sum()) + 1} of {len(f1)}" if len(f1) > 1 else ""
    text = f"CLGAN{place} under the paper's detector: mean F1 {f1['clgan']:.1f} %, AUROC {auroc:.3f}"
    text += ", little better than chance" if auroc < CHANCE else ""
    text += f", after {seen:.0f} training images a run." if np.isfinite(seen) else "."
    text += EARLY if seen < EARLY_IMAGES else ""
    printed = _printed(mine, published)
    text += f" The paper's Table 3 has F1 {printed:.1f} % here." if np.isfinite(printed) else ""
    inside, outside = (100 * model_means(mine, name)["clgan"] for name in ("inside", "outside"))
    return f"{text} {_reason(inside, outside)}".strip()


def _reason(inside: float, outside: float) -> str:
    """Why CLGAN finds what it finds, from its mean residuals in percent of the range."""
    if not np.isfinite([inside, outside]).all():
        return ""
    ratio = f"{inside / outside:.1f} times" if outside else "as large as"
    sizes = f"its residual inside the defects ({inside:.1f} % of the range)"
    if outside > UNLIKE:
        return (
            f"Its reconstructions do not look like the product: the mean residual is {outside:.1f} % of the range outside "
            f"the defects, {inside:.1f} % inside. Such a residual hides a defect."
        )
    if inside <= STANDS_OUT * outside:
        text = f"Defects hardly stand out: {sizes} is {ratio} that outside."
        return text + (" It reconstructs the defects, too." if inside < COPIED else "")
    return f"Defects stand out: {sizes} is {ratio} that outside."


def _next(paper: pd.DataFrame) -> str:
    """What to run next."""
    models, outside = set(paper["model"]), 100 * model_means(paper, "outside").get("clgan", np.nan)
    embedded = set(paper["data"].dropna()) == {EMBEDDED}
    proposals = {
        "run it again to finish the missing runs": not paper["finished"].astype(bool).all(),
        "add the control template, without which no gain can be told": "template" not in models,
        "train CLGAN on more images (budget)": outside > UNLIKE,
        "add clgan_rc, the variant that is trained to restore": "template" in models and "clgan_rc" not in models,
        "see real images: make benchmark EXPERIMENT=mvtec_evening DATA=<folder of MVTec AD>": embedded,
        "add seeds, since one says nothing about scatter": paper["seed"].nunique() == 1,
    }
    chosen = [text for text, holds in proposals.items() if holds][:NEXT]
    return f"To run next: {'; '.join(chosen)}." if chosen else ""


def _printed(mine: pd.DataFrame, published: pd.DataFrame | None) -> float:
    """The paper's mean F1 for CLGAN on these categories; NaN unless the images are MVTec AD and it has them all."""
    data = mine["data"].dropna()
    if published is None or data.empty or not all(map(is_mvtec, data)):
        return float("nan")
    rows = published[(published["metric"] == "F1") & (published["model"] == "clgan")].set_index("category")["percent"]
    return float(rows.reindex(mine["category"].unique()).mean(skipna=False))


def _count(count: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun if count == 1 else plural}"
