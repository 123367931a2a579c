"""Folders as people have them: what is in them, names that a disk does not take, and results that replace earlier ones."""

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clgan_lib.image_files import SUFFIXES, shown, usual
from clgan_lib.runs.folder import writing

_WRITTEN = ("masks", "overlays", "maps", "sorted", "scores.csv", "gallery.html", "inspection.json")
_HIDDEN = ".inspection-"  # what is in the making, and what is being replaced
_LONGEST = 255  # bytes of a file's name, on most disks


def find_images(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Images and other files in a folder and all folders under it, linked ones too, in order, without hidden ones.

    Raises:
        FileNotFoundError: if it is not a folder or holds no image.
        OSError: naming a folder in it that cannot be read: its images would be missing.
    """

    def refuse(error: OSError) -> None:
        """End the walk at a folder that cannot be read."""
        raise OSError(f"{shown(error.filename)} cannot be read ({error.strerror}); make it readable, or move it away")

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; name the one that holds the images")
    files: list[Path] = []
    seen: set[str] = set()  # a link may lead back, or to a folder that is listed already
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        wanted = real not in seen
        below = filter(usual, folders if wanted else ())
        folders[:] = sorted(below, key=lambda name: (Path(place, name).is_symlink(), name))
        files += [Path(place, name) for name in names if wanted and usual(name)]
        seen.add(real)
    files.sort()
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise FileNotFoundError(f"{folder} holds no image; expected files that end in {', '.join(sorted(SUFFIXES))}")
    return images, [path for path in files if path.suffix.lower() not in SUFFIXES]


def say_left_out(others: list[Path]) -> None:
    """Print how many files of each suffix are not read."""
    if others:
        counts = Counter(path.suffix.lower() or "no suffix" for path in others).most_common()
        kinds = ", ".join(f"{count} {shown(suffix)}" for suffix, count in counts)
        print(f"not read, since they are in no format that is known here: {kinds}, such as {shown(others[0].name)}")


def free_name(name: str, taken: set[str]) -> str:
    """The name of an image's PNG: its own, with ``.png`` added if it has another suffix or the name is taken.

    What is too long for a disk is cut, and ends in a hash.
    """
    name = "/".join(_cut(part) for part in name.split("/"))
    while not name.lower().endswith(".png") or name.lower() in taken:  # some disks do not tell A from a
        name += ".png"
    taken.add(name.lower())
    return name


def _cut(part: str) -> str:
    """A part of a path with room for some ``.png``."""
    raw, room = part.encode(), _LONGEST - 16
    if len(raw) <= room:
        return part
    return f"{raw[: room - 9].decode(errors='ignore')}-{hashlib.sha256(raw).hexdigest()[:8]}"


@contextmanager
def filling(out: Path) -> Iterator[Path]:
    """A hidden folder in `out` to write to; what is in it takes the place of the earlier results once it is complete.

    It is in `out`, since only that may be a mounted or writable folder.

    Raises:
        FileExistsError: if `out` holds files of others.
        OSError: naming `out`, if it cannot be written. The earlier results stay.
    """
    out = out.resolve()
    there = {path.name for path in out.iterdir()} if out.is_dir() else {out.name} if out.exists() else set()
    ours = {name for name in there if name in _WRITTEN or name.startswith(_HIDDEN) or name == "lost+found"}
    known = any(name == "inspection.json" or name.startswith(_HIDDEN) for name in there)
    if there - ours or (ours - {"lost+found"} and not known):
        wrong = sorted(there - ours or ours)[0]
        raise FileExistsError(f"{out} holds {wrong!r}, which no inspection wrote; choose another folder")
    part, new = out / f"{_HIDDEN}{os.getpid()}.part", not out.exists()
    moved: list[tuple[Path, Path]] = []  # (from, to)
    with writing(out, "free space, or choose another folder"):
        try:
            _remove(part)  # of a killed inspection: in a container every process has the same number
            part.mkdir(parents=True)
            yield part
            for name in _WRITTEN:
                _replace(part / name, out / name, moved)
        except BaseException:
            for source, target in reversed(moved):
                with suppress(OSError):  # what cannot come back now stays aside, for its owner to find
                    target.rename(source)
            raise
        else:
            for left in [*out.rglob(f"{_HIDDEN}*")]:  # what was there, and what killed inspections left
                _remove(left)
        finally:
            for left in [*out.rglob(part.name)]:
                _remove(left)
            if new and not any(out.iterdir()):
                out.rmdir()


def _replace(new: Path, old: Path, moved: list[tuple[Path, Path]]) -> None:
    """Rename `old` aside and `new` to its place; of a folder that cannot be renamed, as a mounted one, all that is in it."""
    # Aside in the same folder: a folder that is read-only itself can be renamed, but not moved to another.
    aside = old.with_name(f"{_HIDDEN}{os.getpid()}.{len(moved)}")
    try:
        if old.is_dir() and not old.is_symlink() and any(os.path.ismount(place) for place, _, _ in os.walk(old)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(old))  # it would move with what is mounted below
        _rename(old, aside, moved)
    except OSError:
        if not old.is_dir() or old.is_symlink() or new.is_file():
            raise
        staged = old / f"{_HIDDEN}{os.getpid()}.part"  # on the disk of `old`, whole before anything there changes
        _remove(staged)
        staged.mkdir()
        for path in sorted(new.rglob("*")):
            copied = staged / path.relative_to(new)
            copied.mkdir() if path.is_dir() else shutil.copyfile(path, copied)
        for name in sorted({path.name for folder in (old, staged) for path in folder.iterdir() if usual(path.name)}):
            _replace(staged / name, old / name, moved)
    else:
        _rename(new, old, moved)


def _rename(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    if os.path.lexists(source):
        source.rename(target)
        moved.append((source, target))


def _remove(path: Path) -> None:
    """Remove a file or a folder, and read-only ones in it, as far as possible."""
    for place, _, _ in () if path.is_symlink() else os.walk(path):
        with suppress(OSError):
            os.chmod(place, 0o700)
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()
