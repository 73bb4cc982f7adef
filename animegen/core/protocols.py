"""What a trained model can do for the applications, whatever family it comes from.

``stylize``, ``interpolate`` and ``generate`` know these protocols and no model: they serve every
checkpoint whose module has the methods. ``isinstance(model, Stylizer)`` tells whether it has.

All pictures are float tensors in [-1, 1], RGB, ``(B, 3, H, W)``; clips are ``(B, T, 3, H, W)``.
Models get and return batches on their own device, in eval mode and without gradients.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Stylizer(Protocol):
    """A model that turns photos, or the frames of live video, into anime."""

    #: H and W must be multiples of this number; the application pads and crops.
    factor: int

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        """Stylise one frame of each of B independent streams.

        A model that looks at single pictures returns the state it was given; one that remembers
        (recurrence, previous output, key frames) keeps its memory there and nowhere else.

        Args:
            frames: ``(B, 3, H, W)`` in [-1, 1], the next frame of each stream.
            state: what the call for the previous frame returned: opaque to the caller, valid for
                the same B, H and W. ``None`` at the start of a stream and after a cut.
            style: which look to apply, for models that know several; ``None`` is the model's own
                choice. Its meaning belongs to the model.

        Returns:
            the stylised frames, ``(B, 3, H, W)`` in [-1, 1], and the state for the next call.
        """
        ...


@runtime_checkable
class Interpolator(Protocol):
    """A model that draws the frame at any time between two frames."""

    #: H and W must be multiples of this number; the application pads and crops.
    factor: int

    def encode_pair(self, first: Tensor, last: Tensor) -> Any:
        """Do the work that all frames between the two have in common.

        Args:
            first: ``(B, 3, H, W)`` in [-1, 1], the frame at t = 0.
            last: ``(B, 3, H, W)`` in [-1, 1], the frame at t = 1.

        Returns:
            an opaque value for :meth:`synthesize`.
        """
        ...

    def synthesize(self, encoded: Any, t: Tensor) -> Tensor:
        """Return the frames at time ``t``, ``(B, 3, H, W)`` in [-1, 1].

        Args:
            encoded: what :meth:`encode_pair` returned; it may be used for any number of times.
            t: ``(B,)``, strictly between 0 (first) and 1 (last).
        """
        ...


@runtime_checkable
class ClipGenerator(Protocol):
    """A model that draws a whole clip between its first and its last frame."""

    #: H and W must be multiples of this number; the application pads and crops.
    factor: int

    def generate(self, first: Tensor, last: Tensor, frames: int) -> Tensor:
        """Return a clip ``(B, frames, 3, H, W)`` in [-1, 1] that begins and ends with the given frames.

        Args:
            first: ``(B, 3, H, W)`` in [-1, 1], frame 0 of the clip.
            last: ``(B, 3, H, W)`` in [-1, 1], frame ``frames - 1`` of the clip.
            frames: length of the clip including both given frames, at least 2.
        """
        ...
