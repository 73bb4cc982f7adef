"""What a trained model can do for the applications, whatever family it comes from.

``stylize``, ``interpolate`` and ``generate`` know these protocols and no model: they serve every
checkpoint whose module has the methods. ``isinstance(model, Stylizer)`` tells whether it has.

All pictures are float tensors in [-1, 1], RGB, ``(B, 3, H, W)``; clips are ``(B, T, 3, H, W)``.
Models get and return batches on their own device, in eval mode and without gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from animegen.errors import AnimegenError


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
class Styled(Protocol):
    """A Stylizer that can be shown stills of the look that is wanted."""

    def encode_style(self, stills: Sequence[Tensor], weights: Sequence[float] | None = None) -> Any:
        """Return what :meth:`Stylizer.stylize` takes as ``style``, for any number of frames.

        Args:
            stills: pictures ``(3, H, W)`` in [-1, 1] of any sizes.
            weights: how much each counts, none negative; ``None``: all alike.
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


@dataclass(frozen=True)
class Sampling:
    """How a model that draws by chance chooses; a model that does not ignores it.

    Attributes:
        temperature: above 1 more surprising, below 1 more likely.
        top_k: choose among so many of the likeliest values; ``None`` for all.
        top_p: choose among the likeliest values that together have this probability; ``None`` for all.
        steps: passes in which a masked clip or frame is filled; ``None`` is the model's own number.
        guidance: how strongly the last frame pulls: 1 as learned, 0 not at all, above 1 more strongly.
        greedy: always take the likeliest value.
        seed: clip b of a batch is drawn with seed + b, whatever else is in the batch.

    Raises:
        AnimegenError: for a value that means nothing.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    steps: int | None = None
    guidance: float = 1.0
    greedy: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.temperature > 0:
            raise AnimegenError(f"temperature={self.temperature} is not above 0: use greedy=true for no chance at all.")
        if self.top_k is not None and self.top_k < 1:
            raise AnimegenError(f"top_k={self.top_k} leaves nothing to choose from: use 1 or more, or null for all.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise AnimegenError(f"top_p={self.top_p} is no share: use a number above 0 and at most 1, or null for all.")
        if self.steps is not None and self.steps < 1:
            raise AnimegenError(f"steps={self.steps} fills nothing: use 1 or more, or null for the model's own number.")
        if self.guidance < 0:
            raise AnimegenError(f"guidance={self.guidance} is negative: use 0 or more; 1 is as learned.")


@runtime_checkable
class ClipGenerator(Protocol):
    """A model that draws a whole clip between its first and its last frame."""

    #: H and W must be multiples of this number; the application pads and crops.
    factor: int

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return a clip ``(B, frames, 3, H, W)`` in [-1, 1] that begins and ends with the given frames.

        A model may also have ``max_frames``, the longest clip that it knows, and ``max_size``, the greatest height and
        width of its pictures: the application then cuts longer gaps in two and scales larger pictures.

        Args:
            first: ``(B, 3, H, W)`` in [-1, 1], frame 0 of the clip.
            last: ``(B, 3, H, W)`` in [-1, 1], frame ``frames - 1`` of the clip.
            frames: length of the clip including both given frames, at least 2.
            sampling: how to choose; ``None`` is the model's own choice.
            keys: further frames that are given, by their number in the clip, ``(B, 3, H, W)`` each.
        """
        ...
