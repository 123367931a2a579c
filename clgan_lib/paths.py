"""The repository, its results, and a cache that can be deleted at any time; and how a file is written."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(os.environ.get("CLGAN_RESULTS") or ROOT / "results")  # the tests set it, to a copy of what git holds
CACHE = Path(os.environ.get("CLGAN_CACHE") or ROOT / ".cache")


def safe_name(value: str, what: str) -> str:
    """Return `value` if it can name one folder and nothing outside it.

    Args:
        value: a name of a category, an experiment or a model.
        what: how the error calls it, such as ``"category"``.

    Raises:
        ValueError: if the name is empty or hidden, could lead out of its parent folder, or holds what a shell, Snakemake or
            Windows reads as more than a name. Letters of any script, spaces and dots inside are fine.
    """
    odd = any(c in '/\\:*?"<>|{}$`;&' or unicodedata.category(c)[0] == "C" for c in value)
    if not value or odd or value != value.strip(" .") or value[0] in "-~":
        raise ValueError(f"{what}: {value!r} cannot name a folder; use letters, digits, '.', '_' and '-'")
    return value


def experiment_file(name: str | Path) -> Path:
    """The YAML file of an experiment: a path, or the bare name of a file in ``config/``.

    Raises:
        FileNotFoundError: listing those that are there.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = ROOT / "config" / f"{path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (ROOT / "config").glob("*.yaml")))
        raise FileNotFoundError(f"experiment file {path} does not exist; there are: {known}")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the path's place only once it is whole and on the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "r+b") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
