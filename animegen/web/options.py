"""The keys of ``animegen web``; this module imports neither PyTorch nor Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from animegen.config.common import ComputeOptions, PrecisionOptions, RunsOptions
from animegen.config.options import option


@dataclass
class WebOptions(RunsOptions, ComputeOptions, PrecisionOptions):
    """Open a web page that applies models to photos and videos, and shows the newest runs.

    The page needs pip install 'animegen[web]'. It runs on this machine, loads nothing from other hosts, and only this
    machine can open it unless host= is changed. Uploads and results are removed when the command ends. Ctrl+C ends it.
    """

    command: ClassVar[str] = "web"
    examples: ClassVar[Sequence[str]] = ("", "checkpoint=runs/my_run", "port=8000 open=false runs=~/animegen/runs")

    checkpoint: list[str] = option([], "further models to offer: run folders or .ckpt files", path=True)
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 admits every machine of the network")
    port: int = option(7860, "port to listen on; 0: any free one", minimum=0, maximum=65_535)
    open: bool = option(True, "open the page in the browser")
    megabytes: int = option(200, "largest file that the page accepts", minimum=1, maximum=100_000)
