"""Report on this machine: versions, devices, codecs, feature weights, disk space."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from animegen import __version__
from animegen.engine.machine import PACKAGES

#: File names of torchvision's ImageNet weights in the torch hub folder.
FEATURE_FILES = {
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg16": "vgg16-397923af.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
}


class Finding(NamedTuple):
    """One line of the report; ``good`` is ``None`` for neutral information."""

    good: bool | None
    name: str
    text: str


def findings() -> Iterator[Finding]:
    """Yield the lines of the report."""
    yield Finding(
        None, "animegen", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    for package in PACKAGES:
        try:
            yield Finding(True, package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(False, package, "not installed: run make install, or pip install animegen")
    yield from _processors()
    yield from _codecs()
    yield from _feature_weights()
    yield _space()


def _processors() -> Iterator[Finding]:
    yield Finding(
        None,
        "CPU",
        f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads (threads= or OMP_NUM_THREADS)",
    )
    flags = _cpu_flags()
    if flags:
        fast = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
        text = (
            f"{', '.join(fast)}: precision=bf16 is faster here, and used by precision=auto"
            if fast
            else "none: precision=bf16 is emulated, 10 to 20 times as slow as fp32; precision=auto uses fp32"
        )
        yield Finding(bool(fast) or None, "bf16 on the CPU", text)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
            yield Finding(
                True, f"CUDA {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16} bf16"
            )
    else:
        built = torch.version.cuda
        text = (
            f"none visible to torch (built for CUDA {built}); check the driver with nvidia-smi"
            if built
            else "this torch is a CPU build"
        )
        yield Finding(None, "CUDA", f"{text}; everything runs on the CPU")
    if torch.backends.mps.is_available():
        yield Finding(True, "Apple GPU", "device=mps works")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    text = compiler or "no C++ compiler: model.compile needs one on the CPU; leave model.compile empty"
    yield Finding(True if compiler else None, "torch.compile", text)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


def _codecs() -> Iterator[Finding]:
    try:
        import av
        from av.codec import Codec
    except ImportError:
        return
    for name, use in (("libx264", "H.264 videos"), ("libx265", "H.265 videos"), ("libsvtav1", "AV1 videos")):
        try:
            Codec(name, "w")
            yield Finding(True, name, f"writes {use}")
        except (av.error.FFmpegError, ValueError):
            yield Finding(None, name, f"missing in this build of PyAV: it cannot write {use}")


def _feature_weights() -> Iterator[Finding]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name, file in FEATURE_FILES.items():
        if (folder / file).is_file():
            yield Finding(True, f"features={name}", f"weights at {folder / file}")
        else:
            remedy = (
                f"downloads on first use; without a network give features.weights=<file> or put {file} into {folder}"
            )
            yield Finding(None, f"features={name}", f"no weights on this machine: {remedy}")


def _space() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding(
        free > 2, "disk", f"{free:.0f} GiB free here" + ("" if free > 2 else ": runs need some GiB, make room")
    )


def report() -> bool:
    """Print the report; return whether everything that animegen needs is installed."""
    console = Console(highlight=False, soft_wrap=True)
    complete = True
    for finding in findings():
        mark = {True: "[green]+[/]", False: "[red]![/]", None: " "}[finding.good]
        complete &= finding.good is not False
        console.print(f"{mark} {finding.name:<22} {finding.text}")
    return complete
