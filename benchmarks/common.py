"""What the benchmarks share: paired timing, memory of one side by itself, the machine's ceiling, and Markdown."""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import psutil
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clgan_lib.runs.execution import environment
from clgan_lib.training import peak_bytes, pick_device, set_threads

ROOT = Path(__file__).resolve().parents[1]
MiB = 2**20


def parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--repeats", type=int, default=repeats, help="timed rounds, each side once a round")
    made.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as torch chooses")
    made.add_argument("--device", default="auto")
    return made


def begin(arguments: argparse.Namespace) -> torch.device:
    """Set the threads, print the machine, and say which device is used."""
    set_threads(arguments.threads)
    device = pick_device(arguments.device)
    print(machine(device), flush=True)
    return device


def machine(device: torch.device) -> str:
    """Where a table comes from: device, versions, and what else ran on the machine."""
    found = environment(device)
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "numpy", "opencv"))
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{_processor() if device.type == 'cpu' else found['device_name']}, {found['threads']} of {os.cpu_count()} CPU "
        f"threads{load}; {platform.system()}, Python {found['python']}, {versions}; commit {found['commit'][:12]}"
        f"{' with changes' if found.get('dirty') else ''}\n"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def paired(sides: dict[str, Callable[[], object]], repeats: int, *, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each side, a list as long as `repeats`; in turn in each round, so that all share its weather."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, side in sides.items():
            seconds = timed(side)
            if turn >= warmup:
                times[name].append(seconds)
    return times


def timed(side: Callable[[], object]) -> float:
    """Seconds of one call, the GPU's queue emptied before and after."""
    wait()
    start = time.perf_counter()
    side()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(times: Sequence[float], unit: float = 1.0) -> str:
    """Median and range, as ``1.23 (1.20-1.31)``."""
    return f"{statistics.median(times) / unit:.3g} ({min(times) / unit:.3g}-{max(times) / unit:.3g})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster: the median over pairs taken side by side."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown, labels left and numbers right."""
    print("| " + " | ".join(header) + " |\n|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print(flush=True)


def ceiling(device: torch.device, *, bf16: bool = False, seconds: float = 1.0) -> float:
    """FLOP/s of what the device does best: bf16 matrices on a GPU, a 3x3 convolution at 256 channels on a CPU.

    The best of the rounds that fit into `seconds`; an 8192-sided product or a 64x64 picture, that in float32 or in `bf16`.
    """
    if device.type == "cpu":
        kind = torch.bfloat16 if bf16 else torch.float32
        x, w = torch.randn(1, 256, 64, 64, dtype=kind), torch.randn(256, 256, 3, 3, dtype=kind)
        work, step = 2 * 9 * 256 * 256 * 64 * 64, lambda: F.conv2d(x, w, padding=1)
    else:
        x = w = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
        work, step = 2 * 8192**3, lambda: x @ w
    with torch.no_grad():
        step()
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            best = min(best, timed(step))
    return work / best


def flops_of(step: Callable[[], object]) -> float:
    """Multiplications and additions of one call, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def peak_memory(module: str, function: str, **arguments: Any) -> float:
    """Bytes that ``module.function(**arguments)`` and two calls of its answer need at their peak.

    In a process of its own, beyond what imports took; on a GPU here, where torch's allocator counts.
    """
    if torch.device(arguments.get("device", "cpu")).type == "cuda":
        return _peak_on_gpu(getattr(importlib.import_module(module), function), arguments)
    request = json.dumps([module, function, arguments, torch.get_num_threads()])
    command = [sys.executable, "-m", "benchmarks.common", request]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PYTHONPATH": path}
    answer = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    try:
        return float(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        print(f"no memory figure for {function} {arguments}: {answer.stderr.strip()[-300:]}", file=sys.stderr)
        return float("nan")


def _peak_on_gpu(prepare: Callable[..., Callable[[], object]], arguments: dict[str, Any]) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run = prepare(**arguments)
    for _ in range(2):
        run()
    wait()
    return torch.cuda.max_memory_allocated() - before


def _child(request: str) -> None:
    module, function, arguments, threads = json.loads(request)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    prepare = getattr(importlib.import_module(module), function)
    before = psutil.Process().memory_info().rss
    run = prepare(**arguments)
    for _ in range(2):
        run()
    print(_peak() - before)


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with the parent's peak
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return peak_bytes(torch.device("cpu"))


if __name__ == "__main__":
    _child(sys.argv[1])
