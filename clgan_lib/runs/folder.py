"""Run folders: the lock against two runs at once, and errors of disk, memory and compiler.

Each error is one line that names the folder or the file and says what to do.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from clgan_lib.paths import replacing
from clgan_lib.runs.config import RunConfig

REDO = "delete metrics.json beside it and run again"  # a run that has one is finished
_held: dict[tuple[int, Path], FileLock] = {}  # run folders that this process holds, by process and folder


def claim(folder: Path) -> FileLock:
    """Lock a run folder for this process; remove its ``metrics.json`` and the half-written files of a killed run.

    The newer of two runs in one process gets the folder, so that a notebook can start an interrupted run again. The older
    one can no longer write.

    Raises:
        RuntimeError: if another process holds it.
        OSError: naming the folder, if it can't be written.
    """
    if older := _held.pop((os.getpid(), folder), None):
        older.release()
    with writing(folder, "choose another results_root"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            remedy = "wait for it, or choose another experiment or seed"
            raise RuntimeError(f"{folder} is in use by another run; {remedy}") from None
        (folder / "metrics.json").unlink(missing_ok=True)
        for part in folder.rglob(".*.part"):
            part.unlink()
    _held[os.getpid(), folder] = lock
    return lock


def refuse_other_data(config: RunConfig) -> None:
    """Refuse to overwrite what was trained or imported to the end on other data.

    Raises:
        FileExistsError: naming the run folder, and both data.
    """
    folder, roots = config.folder, [config.data_root]
    with suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: nothing is finished
        if (folder / "readiness.json").is_file():  # by `clgan_lib.interop.learning`, which writes no metrics
            roots.append(json.loads((folder / "config.json").read_text(encoding="utf8"))["data_root"])
        roots.append(json.loads((folder / "metrics.json").read_text(encoding="utf8"))["config"]["data_root"])
    now, before = _data(roots[0]), _data(roots[-1])
    if now != before:
        remedy = "give this one another category or experiment, or remove that folder"
        raise FileExistsError(f"{folder} holds a finished run on {before}, and this one is on {now}; {remedy}")


def _data(root: str) -> str:
    """A data root in words that are the same for the same folder."""
    return str(Path(root).resolve()).removesuffix("/train/good") if root else "the embedded data"


@contextmanager
def writing(folder: Path, remedy: str) -> Iterator[None]:
    """Turn the errors of a full, read-only or broken disk into one line.

    Raises:
        OSError: with the folder, the system's reason and the remedy; errors about other files pass unchanged.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError):
            name = str(folder if error.filename is None else error.filename)
            if error.errno is None or not (Path(name).is_relative_to(folder) or folder.is_relative_to(name)):
                raise
        raise OSError(f"{folder} cannot be written ({first_line(error)}); {remedy}") from error


@contextmanager
def computing(config: RunConfig) -> Iterator[None]:
    """Turn a failed allocation, on the CPU or a GPU, or a failed compilation into one line with a remedy.

    Raises:
        MemoryError: naming the run.
        RuntimeError: if the networks cannot be compiled.
    """
    try:
        yield
    except (MemoryError, RuntimeError, cv2.error) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            why = f"torch.compile cannot build the networks here ({first_line(error)})"
            raise RuntimeError(f"compiled: {why}; install a C++ compiler, or leave it false") from error
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        what = f"model {config.model!r} on {config.category!r} at {config.image_size} px"
        raise MemoryError(
            f"{what} needs more memory than there is ({first_line(error)}); lower image_size or options.batch_size"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; NaN is refused rather than written."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf8")
