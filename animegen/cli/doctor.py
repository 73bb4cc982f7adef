"""``animegen doctor``: check of hardware, programs and packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from animegen.cli.command import command
from animegen.config.options import Options


@dataclass
class DoctorOptions(Options):
    """Check the hardware, programs and packages that animegen uses, and suggest remedies. Nothing is changed.

    Exit code: 0 complete, 1 something that animegen needs is missing.
    """

    command: ClassVar[str] = "doctor"


@command(DoctorOptions)
def main(options: DoctorOptions) -> int:
    """Print the report."""
    from animegen.launch.doctor import report  # imports PyTorch

    return 0 if report() else 1
