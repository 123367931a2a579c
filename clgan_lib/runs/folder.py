"""A run folder and what can befall it: two runs at once, a full or read-only disk, a file cut short or edited.

What goes wrong here ends as one line that names the folder or the file and says what to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from clgan_lib.paths import replacing
from clgan_lib.runs.config import RunConfig

REDO = "delete metrics.json beside it and run again"  # a grid takes a run that has one for done
_held: dict[tuple[int, Path], FileLock] = {}  # run folders that this process holds, by process and folder


def claim(folder: Path) -> FileLock:
    """Hold a run folder for this process, take its old sign of success away, sweep up what a killed run left half written.

    A notebook whose run was interrupted may start it again: the newer run of one process takes the folder from the older,
    which can then write no more.

    Raises:
        RuntimeError: if another process holds it.
        OSError: naming the folder, if it can't be written.
    """
    older = _held.pop((os.getpid(), folder), None)
    if older:
        older.release()
    with writing(folder, "choose another results_root"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"{folder} is in use by another run; wait for it, or choose another experiment or seed"
            ) from None
        (folder / "metrics.json").unlink(missing_ok=True)
        for part in folder.rglob(".*.part"):
            part.unlink()
    _held[os.getpid(), folder] = lock
    return lock


@contextmanager
def writing(folder: Path, remedy: str) -> Iterator[None]:
    """Turn what a full, read-only or broken disk provokes into one line that names the folder and what to do.

    Raises:
        OSError: with the system's reason in it; errors about other files pass unchanged.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and (error.errno is None or not _related(error.filename, folder)):
            raise
        raise OSError(f"{folder} cannot be written ({first_line(error)}); {remedy}") from error


def _related(name: object, folder: Path) -> bool:
    """Whether a system error can be about `folder`: about no file in particular, one in it, or one it lies in."""
    return name is None or Path(str(name)).is_relative_to(folder) or folder.is_relative_to(str(name))


@contextmanager
def within_memory(config: RunConfig) -> Iterator[None]:
    """Turn an allocation that failed, on the CPU or a GPU, into one line with a remedy.

    Raises:
        MemoryError: naming the run.
    """
    try:
        yield
    except (MemoryError, RuntimeError, cv2.error) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        what = f"model {config.model!r} on {config.category!r} at {config.image_size} px"
        raise MemoryError(
            f"{what} needs more memory than there is ({first_line(error)}); lower image_size or options.batch_size"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; NaN is refused rather than written."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf8")
