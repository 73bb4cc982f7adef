"""Clips: sources of video frames, and the views that make pairs of frames, and whole clips, of them."""

from animegen.data.clips.augment import ClipAugment
from animegen.data.clips.digits import MovingDigits
from animegen.data.clips.episodes import ClipsView, EpisodeFolders
from animegen.data.clips.films import FilmWindows, anime_windows
from animegen.data.clips.moving import MovingStills, ToonWorldWindows, in_looks
from animegen.data.clips.sources import ClipSource, MixedClips, ToonWorldFrames, TripletFolders
from animegen.data.clips.style_clips import StyledClipAugment, StyledClipView
from animegen.data.clips.view import ClipView

__all__ = [
    "ClipAugment",
    "ClipSource",
    "ClipView",
    "ClipsView",
    "EpisodeFolders",
    "FilmWindows",
    "MixedClips",
    "MovingDigits",
    "MovingStills",
    "StyledClipAugment",
    "StyledClipView",
    "ToonWorldFrames",
    "ToonWorldWindows",
    "TripletFolders",
    "anime_windows",
    "in_looks",
]
