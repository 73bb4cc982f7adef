"""Versions, state of the source repository and machine, for run records and reports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import animegen

#: Packages that affect results.
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "torchmetrics", "lpips", "numpy", "av")


def versions() -> dict[str, str]:
    """Return the versions of animegen, Python and the packages that affect results."""
    found = {"animegen": animegen.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """Return commit and state of the repository of the package, if there is one."""
    where = Path(animegen.__file__).resolve().parent
    # Without optional locks, since a git that is killed here would leave its lock in the user's repository.
    status = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch"]
    try:
        told = subprocess.run(status, cwd=where, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = told.stdout.splitlines()
    if told.returncode != 0 or not lines:
        return None
    commit = lines[0].removeprefix("# branch.oid ")
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def machine() -> dict[str, Any]:
    """Return the properties of the machine that affect speed."""
    facts: dict[str, Any] = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {**facts, "python": sys.implementation.name}
