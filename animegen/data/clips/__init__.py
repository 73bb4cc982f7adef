"""Clips: sources of film frames, and the view that makes pairs of frames with what lies between them."""

from animegen.data.clips.augment import ClipAugment
from animegen.data.clips.sources import ClipSource, ToonWorldFrames, TripletFolders
from animegen.data.clips.view import ClipView

__all__ = ["ClipAugment", "ClipSource", "ClipView", "ToonWorldFrames", "TripletFolders"]
