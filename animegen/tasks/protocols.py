"""Protocols of trained models, independent of the model family.

The applications ``stylize``, ``interpolate`` and ``generate`` work with every checkpoint whose module implements the
protocol; ``isinstance(model, Stylizer)`` checks it.

Images are float tensors in [-1, 1], RGB, ``(B, 3, H, W)``; clips are ``(B, T, 3, H, W)``. Applications call models in
eval mode without gradients, with batches on the device of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from animegen.errors import AnimegenError


@runtime_checkable
class Stylizer(Protocol):
    """A model that stylises photos or video frames."""

    #: H and W must be multiples of this number; the application pads and crops.
    size_divisor: int

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        """Stylise one frame of each of B independent streams.

        A model without memory returns the given state. A model with memory (recurrence, previous output, key frames)
        keeps it in the state and nowhere else.

        Args:
            frames: ``(B, 3, H, W)`` in [-1, 1], the next frame of each stream.
            state: return value of the call for the previous frame, opaque to the caller and valid for the same B, H
                and W. ``None`` at the start of a stream and after a cut.
            style: the style to apply, defined by the model; ``None`` for its default.

        Returns:
            the stylised frames, ``(B, 3, H, W)`` in [-1, 1], and the state for the next call.
        """
        ...


@runtime_checkable
class Exportable(Protocol):
    """A Stylizer that names the weights that exported files need."""

    def exported_weights(self) -> Sequence[str]:
        """Return the names of all submodules, parameters and buffers that stylising a single image reads.

        Raises:
            AnimegenError: if the model cannot be exported.
        """
        ...


@runtime_checkable
class Styled(Protocol):
    """A Stylizer that can apply the style of reference images."""

    def encode_style(self, stills: Sequence[Tensor], weights: Sequence[float] | None = None) -> Any:
        """Return the value of ``style`` in :meth:`Stylizer.stylize` for reference images.

        Args:
            stills: images ``(3, H, W)`` in [-1, 1] of any sizes.
            weights: non-negative weight of each image; ``None`` for equal weights.
        """
        ...


@runtime_checkable
class Interpolator(Protocol):
    """A model that predicts the frame at any time between two frames."""

    #: H and W must be multiples of this number; the application pads and crops.
    size_divisor: int

    def encode_pair(self, first: Tensor, last: Tensor) -> Any:
        """Do the work that all frames between two frames have in common.

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
            encoded: return value of :meth:`encode_pair`; it can be used for any number of times.
            t: ``(B,)``, strictly between 0 (first) and 1 (last).
        """
        ...


@runtime_checkable
class NeighbourInterpolator(Interpolator, Protocol):
    """An interpolator that learns from the pairs before and after how the motion of a pair accelerates."""

    def encode_among(self, encoded: Any, before: tuple[Any, float] | None, after: tuple[Any, float] | None) -> Any:
        """Return the encoded pair with what its neighbours tell, for :meth:`~Interpolator.synthesize`.

        Args:
            encoded: return value of :meth:`~Interpolator.encode_pair`.
            before: that of the pair whose last frame is the first of this one, with the time between its frames in
                units of that of this pair; ``None`` at the beginning of a film, after a cut, or after a pause.
            after: the same for the pair whose first frame is the last of this one.
        """
        ...


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of generative models; deterministic models ignore them.

    Attributes:
        temperature: above 1 increases randomness, below 1 reduces it.
        top_k: sample from the k likeliest values only; ``None`` for all.
        top_p: sample from the smallest set of likeliest values with this total probability; ``None`` for all.
        steps: passes that fill a masked clip or frame; ``None`` for the model's own number.
        guidance: strength of the condition on the last frame: 1 as trained, 0 for none, above 1 for more.
        greedy: always take the likeliest value.
        seed: clip b of a batch uses seed + b, so that it does not depend on the rest of the batch.

    Raises:
        AnimegenError: for an invalid value.
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
            raise AnimegenError(f"temperature={self.temperature} must be above 0: use greedy=true for no randomness.")
        if self.top_k is not None and self.top_k < 1:
            raise AnimegenError(f"top_k={self.top_k} must be at least 1, or null for all values.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise AnimegenError(f"top_p={self.top_p} must be above 0 and at most 1, or null for all values.")
        if self.steps is not None and self.steps < 1:
            raise AnimegenError(f"steps={self.steps} must be at least 1, or null for the model's own number.")
        if self.guidance < 0:
            raise AnimegenError(f"guidance={self.guidance} must be at least 0; 1 is as trained.")


@runtime_checkable
class ClipGenerator(Protocol):
    """A model that generates a whole clip between its first and its last frame.

    Optional attributes: ``max_frames``, the length of the longest clip, and ``max_size``, the largest height and width.
    Beyond these the application splits long gaps and scales large images.
    """

    #: H and W must be multiples of this number; the application pads and crops.
    size_divisor: int

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return a clip ``(B, frames, 3, H, W)`` in [-1, 1] that begins and ends with the given frames.

        Args:
            first: ``(B, 3, H, W)`` in [-1, 1], frame 0 of the clip.
            last: ``(B, 3, H, W)`` in [-1, 1], frame ``frames - 1`` of the clip.
            frames: length of the clip including both given frames, at least 2.
            sampling: sampling settings; ``None`` for the model's default.
            keys: further given frames by frame number, ``(B, 3, H, W)`` each.
        """
        ...
