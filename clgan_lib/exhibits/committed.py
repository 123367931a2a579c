"""What git holds of `results/`, told from what a user's own runs left there.

Committed tables are held against committed runs only; what lies beside them is read, and never counted.
"""

import os
import subprocess
from collections.abc import Collection
from pathlib import Path


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
