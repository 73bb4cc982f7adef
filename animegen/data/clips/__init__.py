"""Sources and views of video clips."""

from animegen.data.clips.augment import ClipAugment
from animegen.data.clips.digits import MovingDigits
from animegen.data.clips.episodes import ClipsView, EpisodeFolders
from animegen.data.clips.films import FilmView
from animegen.data.clips.flow_view import FlowView
from animegen.data.clips.layers import MovingLayers, layers_if_given
from animegen.data.clips.moving import MovingStills, ToonWorldWindows, in_looks
from animegen.data.clips.sources import ClipSource, MixedClips, ToonWorldFrames, TripletFolders
from animegen.data.clips.style_clips import StyledClipAugment, StyledClipView
from animegen.data.clips.videos import VideoWindows, anime_windows, videos_if_given
from animegen.data.clips.view import ClipView

__all__ = [
    "ClipAugment",
    "ClipSource",
    "ClipView",
    "ClipsView",
    "EpisodeFolders",
    "FilmView",
    "FlowView",
    "MixedClips",
    "MovingDigits",
    "MovingLayers",
    "MovingStills",
    "StyledClipAugment",
    "StyledClipView",
    "ToonWorldFrames",
    "ToonWorldWindows",
    "TripletFolders",
    "VideoWindows",
    "anime_windows",
    "in_looks",
    "layers_if_given",
    "videos_if_given",
]
