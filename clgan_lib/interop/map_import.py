"""The referee: score maps of any method become a run, measured like ours.

    python -m clgan_lib.interop.map_import import MAPS --method PaDiM --source "anomalib 2.7.0" --category bottle --data ROOT
    python -m clgan_lib.interop.map_import native MAPS --category bottle --data ROOT  at the images' own size, in flat memory
    python -m clgan_lib.interop.map_import measure EXPERIMENT              measure finished runs again, from their maps
    python -m clgan_lib.interop.map_import export EXPERIMENT ARCHIVE.zip   what `clgan_lib.interop.experiment_archive` packs
    python -m clgan_lib.interop.map_import restore ARCHIVE.zip [--data ROOT]

Which files are understood: `clgan_lib.interop.map_files`. A map is brought to 256x256 like everything here. A method from
elsewhere shows no reconstruction, so the paper's rule is applied to its map in place of ID1, and no residual is given.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from clgan_lib.data import Category, load_category
from clgan_lib.detection import detect_map
from clgan_lib.interop import experiment_archive
from clgan_lib.interop.map_files import Entry, Reader, Shelf, key_of, scan, to_size
from clgan_lib.interop.native_resolution import native_measures
from clgan_lib.paths import RESULTS, safe_name
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.evaluation import SIZE, Evaluation
from clgan_lib.runs.folder import claim, write_json
from clgan_lib.runs.maps import read_evaluation
from clgan_lib.runs.provenance import environment
from clgan_lib.runs.record import Record, make_record, measure_again, read_record, write_record

NO_TIME = dict.fromkeys(("train_s", "images_seen", "steps", "images_per_s", "evaluate_s", "peak_bytes"))


@dataclass(frozen=True)
class Imported:
    """What became of a folder of maps.

    Attributes:
        folder: the run written.
        scored: test images that count.
        expected: test images there are.
        problems: one row per missing image, unknown or unusable map: ``name``, ``problem``; also ``import.csv`` there.
    """

    folder: Path
    scored: int
    expected: int
    problems: pd.DataFrame

    def __str__(self) -> str:
        lines = [f"{self.scored} of {self.expected} test images scored: {self.folder}"]
        lines += [f"  {row.name}: {row.problem}" for row in self.problems.itertuples(index=False)]
        return "\n".join(lines)


def import_maps(maps: str | Path, *, method: str, source: str, image_scores: bool = True, **settings: Any) -> Imported:
    """Score a folder of maps and write it as a run folder.

    Args:
        maps: the folder; see `clgan_lib.interop.map_files` for what it may hold.
        method: how tables call it; also the folder's name.
        source: where the maps come from, in words: program, version, training.
        image_scores: use the image scores that come with the maps; otherwise, and where one is missing, the largest of the
            map.
        settings: fields of `RunConfig`: category, experiment, data_root, seed, results_root, k, quantile, leave_out.

    Returns:
        What was scored, and what was not and why. Maps that cannot be used never stop the rest.

    Raises:
        FileNotFoundError: if there are no maps, or no such data.
        ValueError: if no defective image has a usable map, or a setting cannot be.
    """
    config = RunConfig(model=safe_name(method, "method"), image_size=SIZE, **settings)
    category = load_category(execution.data_root(config), config.category, SIZE)
    execution.check_scorable(config, category)
    shelf = scan(maps)
    found, problems = _answers(shelf, category, config, image_scores)
    expected = len(category.defects)
    del category  # its pictures are in `found` now
    record = make_record(  # whatever it refuses, an earlier import stays
        config,
        found,
        train_images=None,
        env=environment(torch.device("cpu")) | {"device": "elsewhere", "device_name": source},
        imported={"method": method, "source": source, "scored": len(found.names), "of": expected},
        time=NO_TIME,
    )
    lock = claim(config.folder)
    try:
        frame = pd.DataFrame(problems, columns=["name", "problem"])
        frame.to_csv(config.folder / "import.csv", index=False)
        execution.write_predictions(config.folder, found)
        write_json(config.folder / "config.json", config.model_dump())
        write_json(config.folder / "env.json", record.env)
        write_record(config.folder, record)
    finally:
        lock.release()
    return Imported(config.folder, len(found.names), expected, frame)


def _answers(
    shelf: Shelf, category: Category, config: RunConfig, own_scores: bool
) -> tuple[Evaluation, list[tuple[str, str]]]:
    """The usable maps as an evaluation, and what is not used."""
    problems, reader = list(shelf.problems), Reader()
    wanted = {key_of(name)[0]: i for i, name in enumerate(category.test_names)}
    flat = {key.replace("/", "_"): key for key in wanted}  # broken_large_003.npy
    entries: dict[str, Entry] = {}
    scores: dict[str, float] = {}
    for key, entry in shelf.maps.items():
        name = key if key in wanted else flat.get(key.rpartition("/")[2], "")
        if name:
            entries[name] = entry
            scores |= {name: shelf.image_scores[key]} if key in shelf.image_scores else {}
        else:
            problems.append(
                (key, f"no test image of {category.name} has this name; expected such as {next(iter(wanted))}")
            )
    problems += [(name, "no map") for name in wanted if name not in entries]
    good = _read(reader, {f"holdout/{i}": e for i, e in enumerate(shelf.holdout)}, {}, problems)
    usable = _read(reader, {n: entries[n] for n in wanted if n in entries}, _image_sizes(category, wanted), problems)
    chosen = [wanted[name] for name in usable]
    defects = tuple(category.defects[i] for i in chosen)
    if not any(kind not in ("good", *config.leave_out) for kind in defects):
        first = "; ".join(f"{name}: {problem}" for name, problem in problems[:3])
        raise ValueError(f"maps: no defective image of {category.name} has a usable map ({first})")
    names = list(usable)
    stack = np.empty((len(names), SIZE, SIZE), np.float32)
    for i, name in enumerate(names):
        stack[i] = usable.pop(name)  # let go as the stack fills, so that memory holds the maps once
    holdout = np.stack(list(good.values())) if good else np.zeros((0, SIZE, SIZE), np.float32)
    masks = {"dual_threshold": np.stack([detect_map(values, config.k) for values in stack])}
    threshold = float(np.quantile(holdout, config.quantile)) if len(holdout) else None
    if threshold is not None:
        masks["calibrated"] = stack > threshold
    images = category.test[chosen].permute(0, 2, 3, 1).contiguous().numpy()
    given = [scores.get(name, np.nan) for name in names]
    whole = own_scores and bool(np.isfinite(given).all())
    if own_scores and scores and not whole:
        problems.append(("image scores", "not all finite, or not one for each map; the largest of each map is taken"))
    return Evaluation(
        images=images,
        reconstructions=images[:0],
        scores=stack,
        truths=category.masks.numpy()[chosen],
        masks=masks,
        holdout=holdout,
        threshold=threshold,
        names=tuple(category.test_names[i] for i in chosen),
        defects=defects,
        image_scores=np.array(given) if whole else None,
    ), problems


def _read(
    reader: Reader, entries: dict[str, Entry], sizes: dict[str, tuple[int, int]], problems: list[tuple[str, str]]
) -> dict[str, NDArray[np.float32]]:
    """Maps at 256x256 by name, one opened at a time; a map of neither the usual size nor its image's is left out."""
    found: dict[str, tuple[tuple[int, int], NDArray[np.float32]]] = {}
    for name, entry in entries.items():
        try:
            values = reader.read(entry)
            found[name] = (values.shape[0], values.shape[1]), to_size(values, SIZE)
        except ValueError as error:
            problems.append((name, str(error)))
    shapes = Counter(shape for shape, _ in found.values())
    usual = shapes.most_common(1)[0][0] if shapes else (0, 0)
    for name in [n for n, (shape, _) in found.items() if shape not in (usual, sizes.get(n))]:
        shape = found.pop(name)[0]
        problems.append((name, f"the map is {shape[1]}x{shape[0]}; the others are {usual[1]}x{usual[0]}"))
    return {name: values for name, (_, values) in found.items()}


def _image_sizes(category: Category, wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Height and width of the image files, which a map may have, too."""
    sizes = {}
    for name, i in wanted.items():
        path = category.root / category.name / "test" / category.test_names[i]
        if path.is_file():
            with Image.open(path) as image:
                sizes[name] = (image.height, image.width)
    return sizes


def measure(folder: Path) -> Record:
    """Measure a finished run again from its maps, so that a run of an older version has today's measures, too.

    Returns:
        The new content of its ``metrics.json``; settings, environment and times stay as they were, and so does the
        residual where the reconstructions are not here, as after `clgan_lib.interop.experiment_archive.restore`.

    Raises:
        FileNotFoundError: if the run is not finished, or kept no maps.
    """
    old = read_record(folder)
    record = Record(**{**old.content(), **measure_again(old, read_evaluation(folder))})
    write_record(folder, record)
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m clgan_lib.interop.map_import", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--results", default=str(RESULTS), help="folder that holds experiments")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("import", help="score maps of another program as a run")
    add.add_argument("maps")
    for name, default in {
        "method": None,
        "source": None,
        "category": None,
        "data": "",
        "experiment": "imported",
    }.items():
        add.add_argument(f"--{name}", default=default, required=default is None)
    add.add_argument("--leave-out", nargs="*", default=[])
    own = commands.add_parser("native", help="rank maps at the images' own size, in flat memory")
    own.add_argument("maps")
    own.add_argument("--category", required=True)
    own.add_argument("--data", required=True)
    own.add_argument("--leave-out", nargs="*", default=[])
    commands.add_parser("measure", help="measure finished runs again, from their maps").add_argument("experiment")
    out = commands.add_parser("export", help="pack an experiment for deposit")
    out.add_argument("experiment")
    out.add_argument("archive")
    back = commands.add_parser("restore", help="unpack and check an archive")
    back.add_argument("archive")
    back.add_argument("--data", default="", help="data set, for the pictures that an archive may not hold")
    given = parser.parse_args(arguments)
    root = Path(given.results)
    try:
        if given.command == "import":
            settings = {"category": given.category, "data_root": given.data, "experiment": given.experiment}
            settings |= {"results_root": str(root), "leave_out": given.leave_out}
            print(import_maps(given.maps, method=given.method, source=given.source, **settings))
        elif given.command == "native":
            for name, value in native_measures(given.maps, given.data, given.category, given.leave_out).items():
                print(f"{name}: {value}")
        elif given.command == "measure":
            folder = root / safe_name(given.experiment, "experiment")
            found = sorted(folder.glob("*/*/seed*/maps.npz"))
            if not found:
                raise FileNotFoundError(f"{folder} holds no maps.npz to measure; name an experiment that has them")
            for path in found:
                ranking = measure(path.parent).ranking
                print(f"{path.parent}: AUROC {ranking['AUROC']:.3f}, AUPRO {ranking['AUPRO_0.3']:.3f}")
        elif given.command == "export":
            print(experiment_archive.export(root / safe_name(given.experiment, "experiment"), Path(given.archive)))
        else:
            restored = experiment_archive.restore(Path(given.archive), root, given.data)
            print(*restored, sep="\n")
            if not all((folder / "maps.npz").is_file() for folder in restored):
                print("Some have no maps.npz; if the archive has, remove these folders and restore again with --data")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{given.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
