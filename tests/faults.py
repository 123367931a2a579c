"""Faults on purpose: a child process that is killed, interrupted, starved or refused at the n-th change it makes to a file.

Python announces every opening, renaming, removing and making of a file to audit hooks before it happens; a hook in a
forked child strikes at the n-th. So each moment between two changes on the disk is one case, and none needs waiting.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
FAULTS = ("SIGKILL", "half a file", "SIGTERM", "Ctrl-C", "full disk")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        code: 0 done, 1 an exception, negative a signal.
        error: type and text of the exception.
        changes: changes to files under the watched folder, counted where no fault struck.
    """

    code: int
    error: str = ""
    changes: int = 0


def in_child(work: Callable[[], Any], watched: Path | None = None, at: int = 0, fault: str = "", after: float = 0.0,
             patience: float = 280.0) -> Outcome:  # fmt: skip
    """Do `work` in a forked child that meets `fault` at its `at`-th change under `watched`.

    Or that SIGPROF ends, as suddenly as SIGKILL, `after` seconds of its own computing, however busy the machine is.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        count = _arm(watched, at, fault) if watched else [0]
        signal.setitimer(signal.ITIMER_PROF, after)
        code, said = 0, ""
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        try:
            work()
        except BaseException as error:  # whatever it is, the parent wants to know
            code, said = 1, f"{type(error).__name__}: {error}"
        os.write(writer, f"{count[0]} {said}".encode()[:4000])
        os._exit(code)
    os.close(writer)
    deadline = time.monotonic() + patience
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            raise AssertionError("the child hangs")
        time.sleep(0.002)
    status = os.waitstatus_to_exitcode(done[1])
    with os.fdopen(reader, encoding="utf8", errors="replace") as pipe:
        number, _, said = pipe.read().partition(" ")
    return Outcome(status, said, int(number or 0))


def _arm(watched: Path, at: int, fault: str) -> list[int]:
    """Install the hook; returns the count of changes as a list of one."""
    count = [0]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in CHANGES or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(args[0])
        if not path.startswith(str(watched)) or (event == "open" and not _writes(args)):
            return
        count[0] += 1
        if fault == "full disk" and 0 < at <= count[0] and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # and it stays full
        if count[0] == at:
            _strike(fault, path)

    sys.addaudithook(hook)
    return count


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    return any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & (os.O_WRONLY | os.O_RDWR))


def _strike(fault: str, path: str) -> None:
    if fault == "half a file" and os.path.isfile(path):
        os.truncate(path, os.path.getsize(path) // 2)
    if fault in ("SIGKILL", "half a file"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    elif fault == "Ctrl-C":
        raise KeyboardInterrupt
    elif fault == "no memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**18,) * 2)
