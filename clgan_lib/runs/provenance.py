"""Where a result comes from: versions, device, threads, platform and commit."""

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import cv2
import torch

from clgan_lib.paths import ROOT

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "safetensors")


def environment(device: torch.device) -> dict[str, Any]:
    """Where a result comes from: versions, device, threads, platform and commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "opencv": cv2.__version__,  # its package has several names
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        **commit(),
    }


def commit() -> dict[str, Any]:
    """The commit of the code and whether tracked files differ from it; ``"unknown"`` outside a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ":!results"], capture_output=True, text=True
        )
        return {"commit": head, "dirty": bool(changes.stdout.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}
