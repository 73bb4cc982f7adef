"""Key-frame projects for few-shot training: a clip and the drawings of a few of its frames.

``project -> clip (filtered, with guides) -> patches cropped on the device``.
"""

from typing import TYPE_CHECKING, Any

from animegen.data.keyframes.carried import FlowKeys
from animegen.data.keyframes.filters import filtered_project
from animegen.data.keyframes.folder import folder_project
from animegen.data.keyframes.guides import CoordinateGuide, EdgeGuide, FileGuide, GaussGuide, Guide, Guides
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.data.keyframes.project import KeyframeProject, toonworld_project

__all__ = [
    "BilateralFilter",
    "CoordinateGuide",
    "EdgeGuide",
    "FileGuide",
    "FlowKeys",
    "GaussGuide",
    "Guide",
    "Guides",
    "KeyframeData",
    "KeyframeProject",
    "filtered_project",
    "folder_project",
    "toonworld_project",
]


if TYPE_CHECKING:
    from animegen.data.keyframes.datamodule import KeyframeData


def __getattr__(name: str) -> Any:
    """Import the data module, and Lightning with it, on first use: models import this package for application, too."""
    if name == "KeyframeData":
        from animegen.data.keyframes.datamodule import KeyframeData

        return KeyframeData
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
