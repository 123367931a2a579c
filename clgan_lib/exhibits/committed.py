"""What git holds of `results/`, told from what a user's own runs left there.

Committed tables are held against committed runs only; what lies beside them is read, and never counted.
"""

import os
import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from clgan_lib.exhibits.run_table import read_run


def tracked(root: Path) -> set[Path]:
    """The files under `root` that git tracks, relative to it; none outside a checkout, or where git does not answer."""
    try:
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name}


def is_tracked(file: Path) -> bool:
    """Whether git tracks a file."""
    return Path(file.name) in tracked(file.parent)


def view(root: Path, files: Collection[Path], into: Path) -> Path:
    """Fill an empty folder with links to those of `files` that are there, and to the maps beside a run; returns it."""
    maps = {file.with_name("maps.npz") for file in files if file.name == "metrics.json"}
    for shown in {*files, *maps}:
        if (root / shown).is_file():
            (into / shown).parent.mkdir(parents=True, exist_ok=True)
            (into / shown).symlink_to((root / shown).resolve())
    return into


def runs_beside(root: Path, experiment: str, files: Collection[Path]) -> list[Path]:
    """The run folders of an experiment, finished or not, whose `metrics.json` is not among `files`."""
    folders = sorted((root / experiment).glob("*/*/seed*"))
    return [folder for folder in folders if folder.relative_to(root) / "metrics.json" not in files]


def faults(root: Path, folders: Iterable[Path]) -> Iterator[str]:
    """What keeps run folders from being used, a line each that begins with the path of `metrics.json`."""
    for folder in folders:
        path = folder / "metrics.json"
        try:
            read_run(folder)
        except (OSError, ValueError) as error:
            reason = str(error).replace(str(path), "it")
            yield f"{path.relative_to(root).as_posix()} is not used: {reason}"
