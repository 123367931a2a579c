"""Anomaly maps of another program become a run, measured like ours.

Which files are read: `clgan_lib.interop.map_files`. Each map is resized to 256x256. There is no reconstruction, so the
paper's dual threshold is applied to the map in place of ID1, and no residual is reported.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from clgan_lib.data import Category, load_category
from clgan_lib.detection import detect_map
from clgan_lib.image_files import named, shown, upright_size
from clgan_lib.interop.map_files import MapIndex, MapLocation, MapReader, image_key, index_maps, match, resize_map
from clgan_lib.paths import safe_name
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig, one_line
from clgan_lib.runs.evaluation import SIZE, Evaluation
from clgan_lib.runs.folder import claim, first_line, refuse_other_data, write_json
from clgan_lib.runs.maps import read_evaluation
from clgan_lib.runs.record import Record, Time, environment, make_record, measure_again, read_record, write_record

_Problems = list[tuple[str, str]]  # (name, problem)
_NO_TIME = dict.fromkeys(("train_s", "images_seen", "steps", "images_per_s", "evaluate_s", "peak_bytes"))


@dataclass(frozen=True)
class ImportSummary:
    """What was imported from a folder of maps.

    Attributes:
        folder: the run written.
        scored: number of test images with a usable map.
        expected: number of test images.
        problems: columns ``name`` and ``problem``, a row per missing image and per unknown or unusable map; the run's
            ``import.csv``.
    """

    folder: Path
    scored: int
    expected: int
    problems: pd.DataFrame

    def __str__(self) -> str:
        lines = [f"{self.scored} of {self.expected} test images scored: {self.folder}"]
        lines += [f"  {row.name}: {row.problem}" for row in self.problems.itertuples(index=False)]
        return "\n".join(lines)


def import_maps(
    maps: str | Path, *, method: str, source: str, image_scores: bool = True, **settings: Any
) -> ImportSummary:
    """Score a folder of maps and write it as a run folder.

    Args:
        maps: the folder; `clgan_lib.interop.map_files` says what it may hold; ``cost.json`` may hold fields of `Time`.
        method: its name in tables and of its folder, such as ``"PatchCore lite"``. A sign that no folder may have in
            its name, such as a slash, becomes a hyphen.
        source: where the maps come from, in words: program, version, training.
        image_scores: use the image scores that come with the maps. Otherwise, and where one is missing, an image's score is
            the largest of its map.
        settings: fields of `RunConfig`: category, experiment, data_root, seed, results_root, k, quantile, leave_out.

    Returns:
        What was scored, and what was not and why. A map that cannot be used never stops the rest.

    Raises:
        FileNotFoundError: if there are no maps, or no such data.
        FileExistsError: if there is an import of this name on other data.
        ValueError: if no defective image has a usable map, a setting is impossible, or ``cost.json`` is damaged.
    """
    source = " ".join(source.split())  # one line in tables
    config = RunConfig(**_named(method), image_size=SIZE, **settings)
    refuse_other_data(config)
    cost = _cost(Path(maps) / "cost.json")
    category = load_category(execution.data_root(config), config.category, SIZE, config.bit_depth)
    execution.check_scorable(config, category)
    evaluation, problems = _evaluate(index_maps(maps), category, config, image_scores)
    expected, scored = len(category.defects), len(evaluation.names)
    del category  # its images are in `evaluation` now
    record = make_record(  # an earlier import is replaced only if this one is accepted
        config,
        evaluation,
        train_images=None,
        env=environment(torch.device("cpu")) | {"device": "elsewhere", "device_name": source},
        imported={"method": method, "source": source, "scored": scored, "of": expected},
        time=cost,
    )
    lock = claim(config.folder)
    try:
        frame = pd.DataFrame(problems, columns=["name", "problem"])
        frame.to_csv(config.folder / "import.csv", index=False)
        execution.write_predictions(config.folder, evaluation)
        write_json(config.folder / "config.json", config.model_dump())
        write_json(config.folder / "env.json", record.env)
        write_record(config.folder, record)
    finally:
        lock.release()
    return ImportSummary(config.folder, scored, expected, frame)


def _cost(path: Path) -> dict[str, Any]:
    """Seconds and bytes that the other program measured itself; None for each that it does not say."""
    try:
        given = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
        if unknown := sorted({*given} - {*_NO_TIME}):
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(_NO_TIME)}")
        return _NO_TIME | Time(**given).model_dump(exclude_unset=True)
    except (ValueError, TypeError) as error:
        reason = one_line(error, []) if isinstance(error, ValidationError) else first_line(error)
    raise ValueError(f"{path}: {reason}; correct or remove it")


def _named(method: str) -> dict[str, str]:
    """Fields of `RunConfig` under which tables show `method` as it is, though a model's name has no space or sign."""
    name = safe_name(re.sub(r"""[/\\:*?"<>|{}$`;&]""", "-", method).strip(), "method")
    model = re.sub(r"\W+", "_", name)
    model = model if not model[0].isdigit() else f"_{model}"
    return {"model": model} if model == name else {"model": model, "variant": name}


def _evaluate(index: MapIndex, category: Category, config: RunConfig, own_scores: bool) -> tuple[Evaluation, _Problems]:
    """The usable maps as an evaluation, and the problems of the others."""
    problems, reader = list(index.problems), MapReader()
    numbers = {image_key(name)[0]: i for i, name in enumerate(category.test_names)}
    keys, scores, unmatched = match(index, list(numbers), category.name)
    problems += unmatched
    good = _read(reader, {f"holdout/{i}": at for i, at in enumerate(index.holdout)}, {}, problems)
    locations = {name: index.maps[key] for name, key in keys.items()}
    folder = named(category.root / category.name, "test")
    sizes = {name: upright_size(folder / category.test_names[i])[0] for name, i in numbers.items()}
    usable = _read(reader, locations, sizes, problems)
    names = list(usable)
    chosen = [numbers[name] for name in names]
    defects = tuple(category.defects[i] for i in chosen)
    if not any(defect not in ("good", *config.leave_out) for defect in defects):
        first = "; ".join(f"{name}: {problem}" for name, problem in problems[:3])
        raise ValueError(f"maps: no defective image of {category.name} has a usable map ({first})")
    maps = np.empty((len(names), SIZE, SIZE), np.float32)
    for i, name in enumerate(names):
        maps[i] = usable.pop(name)  # released one by one, so that memory holds the maps once
    holdout = np.stack(list(good.values())) if good else np.zeros((0, SIZE, SIZE), np.float32)
    threshold = float(np.quantile(holdout, config.quantile)) if len(holdout) else None
    images = category.test[chosen].permute(0, 2, 3, 1).contiguous().numpy()
    dual = {"dual_threshold": np.stack([detect_map(values, config.k) for values in maps])}
    return Evaluation(
        images=images,
        reconstructions=images[:0],
        scores=maps,
        truths=category.masks.numpy()[chosen],
        masks=dual if threshold is None else dual | {"calibrated": maps > threshold},
        holdout=holdout,
        threshold=threshold,
        names=tuple(shown(category.test_names[i]) for i in chosen),
        defects=defects,
        image_scores=_image_scores(names, scores, problems) if own_scores and scores else None,
    ), problems


def _image_scores(names: list[str], scores: dict[str, float], problems: _Problems) -> NDArray[np.float64] | None:
    """The image scores that came with the maps; None where one is missing or not finite."""
    values = np.array([scores.get(name, np.nan) for name in names])
    if np.isfinite(values).all():
        return values
    problems.append(("image scores", "not all finite, or not one for each map; the largest of each map is taken"))
    return None


def _read(
    reader: MapReader, locations: dict[str, MapLocation], image_sizes: dict[str, tuple[int, int]], problems: _Problems
) -> dict[str, NDArray[np.float32]]:
    """Maps at 256x256 by name; a map that has neither the most frequent size nor its image's is left out."""
    maps: dict[str, NDArray[np.float32]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for name, location in locations.items():
        try:
            values = reader.read(location, image_sizes.get(name))
            maps[name], shapes[name] = resize_map(values, SIZE), (values.shape[0], values.shape[1])
        except ValueError as error:
            problems.append((name, str(error)))
    usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else (0, 0)
    for name, (height, width) in shapes.items():
        if (height, width) != usual and (width, height) != image_sizes.get(name):
            del maps[name]
            problems.append((name, f"the map is {width}x{height}; the others are {usual[1]}x{usual[0]}"))
    return maps


def measure(folder: Path) -> Record:
    """Measure a finished run again from its maps, so that a run of an older version gets today's measures.

    Settings, environment and times stay as they are. So does the residual where the reconstructions are missing, as after
    `clgan_lib.interop.experiment_archive.restore`.

    Returns:
        The new content of its ``metrics.json``.

    Raises:
        FileNotFoundError: if the run is not finished, or kept no maps.
    """
    old = read_record(folder)
    record = Record(**{**old.content(), **measure_again(old, read_evaluation(folder))})
    write_record(folder, record)
    return record
