"""The transformer that predicts the codes of the frames between a first and a last frame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.cpu_kernels import prepacked
from animegen.models.ganime.networks.decoding import ClipMask, make_strategy
from animegen.models.ganime.networks.gpt2 import load_gpt2
from animegen.models.ganime.networks.pixels import PixelContext
from animegen.models.ganime.networks.sampling import CodeSampler, sample_codes
from animegen.models.ganime.networks.token_network import Images, PixelReader, TokenNetwork
from animegen.models.ganime.networks.tokens import NOTHING, TrainingBatch
from animegen.tasks.protocols import Sampling


class CodeTransformer(TokenNetwork):
    """A GPT-2 over the codes of clips, conditioned on the first and the last frame.

    A token vector is the sum of embeddings of its id (a code or a special token), its position (frame, row, column),
    the number of remaining frames, and its segment (first, last, key frame or between).

    Args:
        codes: size K of the codebook.
        grid: largest grid (h, w) of codes.
        max_frames: longest clip, including both given frames.
        layers: number of transformer blocks.
        heads: attention heads per block.
        dim: width.
        decoding: decoding strategy, see :mod:`animegen.models.ganime.networks.decoding`.
        position: ``learned`` (one embedding each for frames, rows and columns), ``learned1d`` (one embedding for the
            index in the sequence, GPT-2), or ``rope3d`` (rotary positions by frame, row and column).
        dropout: dropout probability of the embeddings and in the blocks.
        tied: share the weights of the code embedding and the output layer.
        p_keep: fraction of the codes to generate that are read unchanged in training; the others are replaced by random
            codes.
        frame_dropout: fraction of the frames to generate that are hidden in training.
        end_dropout: fraction of the clips whose last frame is hidden in training; required for guidance.
        key_frames: fraction of the batches in which a random key frame is given, too.
        scheduled: fraction of the codes to generate that are replaced by predictions, at the end of the ramp
            (scheduled sampling).
        scheduled_steps: length of the ramp in training steps.
        pixels: settings of :class:`~animegen.models.ganime.networks.pixels.PairFeatures` for a transformer that also
            reads the pixels of the given frames; ``None`` for codes only.
        motion: settings of :class:`~animegen.models.ganime.networks.motion.MotionHead` for a transformer that also
            predicts the motion of frames; it needs ``pixels``; ``None`` for codes only.
        divisor: side of the square of pixels that one code represents; needed for ``pixels`` only.
        merge: side of the squares of codes that the blocks process as one token, see
            :class:`~animegen.models.ganime.networks.merging.TokenMerging`; 1 for each code on its own.
        body_weights: file with a GPT-2 whose blocks :meth:`load_pretrained` loads before training.
        **strategy_options: arguments of the decoding strategy, such as ``n_frames_before`` or ``steps``; ``None`` for
            its default.

    Raises:
        AnimegenError: for settings that do not exist or cannot be combined.
    """

    def __init__(
        self,
        codes: int,
        grid: tuple[int, int],
        max_frames: int = 16,
        layers: int = 4,
        heads: int = 4,
        dim: int = 128,
        decoding: str = "prefix_ar",
        position: Literal["learned", "learned1d", "rope3d"] = "learned",
        dropout: float = 0.0,
        tied: bool = False,
        p_keep: float = 1.0,
        frame_dropout: float = 0.0,
        end_dropout: float = 0.0,
        key_frames: float = 0.0,
        scheduled: float = 0.0,
        scheduled_steps: int = 1,
        pixels: Mapping[str, Any] | None = None,
        motion: Mapping[str, Any] | None = None,
        divisor: int = 8,
        merge: int = 1,
        body_weights: str | None = None,
        **strategy_options: Any,
    ) -> None:
        strategy = make_strategy(decoding, strategy_options)
        size = (codes, grid, max_frames, layers, heads, dim)
        super().__init__(*size, strategy, position, dropout, tied, pixels, motion, divisor, merge)
        self.strategy_name = decoding
        if scheduled and not self.strategy.reads_generated:
            raise AnimegenError(f"decoding={decoding} never reads generated codes: leave scheduled= at 0.")
        if key_frames and not self.strategy.supports_keys:
            raise AnimegenError(f"decoding={decoding} does not read key frames in advance: leave key_frames= at 0.")
        self.p_keep, self.frame_dropout, self.end_dropout = p_keep, frame_dropout, end_dropout
        self.key_frames, self.scheduled, self.scheduled_steps = key_frames, scheduled, scheduled_steps
        if pixels is not None and (not self.strategy.reads_pixels or end_dropout or key_frames):
            raise AnimegenError(
                "Pixels of the given frames (pixels=) need decoding=clip_mask, without end_dropout and key_frames."
            )
        if merge < 1 or (merge > 1 and not isinstance(self.strategy, ClipMask)):
            raise AnimegenError(f"merge={merge} must be at least 1, and above 1 it needs decoding=clip_mask.")
        if merge > 1 and (self.grid[0] % merge or self.grid[1] % merge):
            raise AnimegenError(
                f"The grid of {self.grid[0]}x{self.grid[1]} codes cannot be divided into squares of {merge}x{merge}:"
                " change model.transformer.merge or the size of the frames."
            )
        self.merge, self.body_weights = merge, body_weights
        #: Whether `body_weights` was loaded. Saved: a model from a checkpoint does not need the file.
        self.body_loaded: Tensor
        self.register_buffer("body_loaded", torch.tensor(False))

    # --- training -------------------------------------------------------------------------------

    def forward(self, clips: Tensor, step: int = 0, images: Images | None = None) -> dict[str, Tensor]:
        """Predict the codes between the given frames.

        In training mode the input is corrupted as the settings say, with torch's global random generator. In eval
        mode the result is deterministic, including the masks of the masked strategies.

        Args:
            clips: (B,T,h,w) int64 codes, T from 3 to ``max_frames``.
            step: training step, for scheduled sampling.
            images: first and last frame, (B,3,H,W) in [-1,1], for a transformer that reads ``pixels``.

        Returns:
            ``logits`` (M,K), and for each of the M predictions ``targets`` (M,), the true code; ``copies`` (M,), bool,
            whether the previous frame has the same code there; ``clip``, ``frame`` and ``cell`` (M,), its index in the
            batch, its frame, and its index in the frame in raster order. If it predicts motion, also ``motion``, the
            estimates (B,F,5,h',w') of :class:`~animegen.models.ganime.networks.motion.MotionHead` in order, for the F
            frames ``motion_frames`` (F,) with predictions.

        Raises:
            AnimegenError: for clips that are too short, too long or too large.
        """
        self.check(clips)
        if clips.shape[1] < 3:
            raise AnimegenError("A clip of 2 frames has nothing between: train on clips of 3 frames or more.")
        keys = self._random_keys(clips.shape[1]) if self.training else []
        batch = self.training_batch(self._corrupted(clips, step, keys) if self.training else clips, keys)
        context = self.context(images, clips[:, 0], clips[:, -1])
        hidden = self.read(batch.tokens, batch.mask, context=context)[:, -len(batch.cell) :]
        motion = self._motion(hidden, batch, context, clips.shape)
        shape = hidden.shape[:2]
        indices = [batch.clip.unsqueeze(1).expand(shape), batch.frame.expand(shape), batch.cell.expand(shape)]
        if batch.predicted is None:
            hidden, (clip, frame, cell) = hidden.flatten(0, 1), [part.flatten() for part in indices]
        else:
            hidden, (clip, frame, cell) = hidden[batch.predicted], [part[batch.predicted] for part in indices]
        flat = clips.flatten(2)
        targets = flat[clip, frame, cell]
        return motion | {
            "logits": self.predict(hidden),
            "targets": targets,
            "copies": targets == flat[clip, frame - 1, cell],
            "clip": clip,
            "frame": frame,
            "cell": cell,
        }

    def _motion(
        self, hidden: Tensor, batch: TrainingBatch, context: PixelContext | None, shape: Sequence[int]
    ) -> dict[str, Any]:
        """Return the motion of frames, from the hidden vectors (B,F h w,dim) of all their codes."""
        if self.motion is None:
            return {}
        assert context is not None
        frames = batch.frame.view(-1, shape[2] * shape[3])[:, 0]
        grids = hidden.unflatten(1, (len(frames), *shape[2:]))
        estimates = self.motion(grids, context.pair, frames / (shape[1] - 1))
        return {"motion": [part.unflatten(0, grids.shape[:2]) for part in estimates], "motion_frames": frames}

    def training_batch(self, ids: Tensor, keys: list[int] | None = None) -> TrainingBatch:
        """Return the token sequences for clips (B,T,h,w) of codes, with special tokens in place of hidden codes."""
        generator = None if self.training else torch.Generator().manual_seed(0)
        return self.strategy.training_batch(ids, keys or [], self.codes, generator)

    def load_pretrained(self) -> str:
        """Load the blocks in ``body_weights``, see :func:`~animegen.models.ganime.networks.gpt2.load_gpt2`."""
        assert self.body_weights is not None
        report = load_gpt2(self.backbone, self.body_weights, dict(self.position_embeddings.items()).get("index"))
        self.body_loaded.fill_(True)
        return report

    def scheduled_fraction(self, step: int) -> float:
        """Return the fraction of codes that are replaced by predictions at a training step."""
        return self.scheduled * min(1.0, step / max(1, self.scheduled_steps))

    def _random_keys(self, frames: int) -> list[int]:
        if not self.key_frames or frames < 4 or float(torch.rand(())) >= self.key_frames:
            return []
        return [int(torch.randint(1, frames - 1, ()))]

    def _corrupted(self, clips: Tensor, step: int, keys: list[int]) -> Tensor:
        """Return the input for clips in training; given frames are unchanged, except for dropout of the last one."""
        ids = clips.clone()
        middle = [t for t in range(1, clips.shape[1] - 1) if t not in keys]
        uniform: Callable[..., Tensor] = lambda *shape: torch.rand(shape, device=clips.device)  # noqa: E731
        inner = ids[:, middle]
        fraction = self.scheduled_fraction(step)
        if fraction > 0:
            inner = torch.where(uniform(*inner.shape) < fraction, self._predicted(clips, keys)[:, middle], inner)
        if self.p_keep < 1:
            inner = torch.where(uniform(*inner.shape) < self.p_keep, inner, torch.randint_like(inner, self.codes))
        nothing = self.codes + NOTHING
        if self.frame_dropout:
            inner = inner.masked_fill(uniform(*inner.shape[:2], 1, 1) < self.frame_dropout, nothing)
        ids[:, middle] = inner
        if self.end_dropout:
            ids[:, -1] = ids[:, -1].masked_fill(uniform(len(ids), 1, 1) < self.end_dropout, nothing)
        return ids

    @torch.no_grad()
    def _predicted(self, clips: Tensor, keys: list[int]) -> Tensor:
        """Return clips in which each predicted code is sampled, given the true codes before it."""
        batch = self.training_batch(clips, keys)
        hidden = self.read(batch.tokens, batch.mask)[:, -len(batch.cell) :]
        codes = sample_codes(self.predict(hidden), torch.rand(hidden.shape[:2], device=clips.device), Sampling())
        chosen = torch.ones_like(codes, dtype=torch.bool) if batch.predicted is None else batch.predicted
        clip, frame, cell = (
            part.expand_as(codes)[chosen] for part in (batch.clip.unsqueeze(1), batch.frame, batch.cell)
        )
        predicted = clips.flatten(2).clone()
        predicted[clip, frame, cell] = codes[chosen]
        return predicted.view_as(clips)

    # --- generation -------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
        images: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Generate clips (B,frames,h,w) of codes; the given frames are copied.

        Args:
            first: (B,h,w) int64, the codes of frame 0.
            last: (B,h,w) int64, the codes of frame ``frames - 1``.
            frames: length, from 2 to ``max_frames``.
            sampling: sampling settings; ``None`` samples from the predicted distribution.
            keys: codes (B,h,w) of further given frames, by frame number.
            images: all given frames (B,3,H,W) in [-1,1] by number, for a transformer that reads ``pixels``.

        Raises:
            AnimegenError: for a length or a grid beyond the limits of the transformer, and for guidance of a
                transformer that was trained without ``end_dropout``.
        """
        sampling = sampling or Sampling()
        clip, known = self._given(first, last, frames, sampling, keys)
        if len(known) == frames:
            return clip
        sampler = CodeSampler(sampling, len(clip), self.codes + NOTHING, clip.device)
        device = clip.device.type
        was_training = self.training
        self.eval()
        per_clip = 1 if self.strategy.shifted else frames * clip[0, 0].numel()
        rows = len(clip) * (2 if sampler.guided else 1) * per_clip
        try:
            if not torch.is_autocast_enabled(device):
                with prepacked(self, rows):
                    return self._fill(clip, known, sampler, images or {})
            # Under autocast all weights would be converted again for each token.
            converted = copy.deepcopy(self).to(torch.get_autocast_dtype(device))
            with torch.autocast(device, enabled=False), prepacked(converted, rows):
                return converted._fill(clip, known, sampler, images or {})
        finally:
            self.train(was_training)

    @torch.no_grad()
    def expect(
        self, first: Tensor, last: Tensor, frames: int, images: Images | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the probabilities (B,frames-2,h,w,K) of all codes between two frames, in one pass, and their motion.

        The motion is (B,frames-2,5,h',w') at half the size of the frames, or ``None`` for a transformer that does not
        predict it.

        Args:
            first: (B,h,w) int64, the codes of frame 0.
            last: (B,h,w) int64, the codes of frame ``frames - 1``.
            frames: length, from 3 to ``max_frames``.
            images: both frames, for a transformer that reads ``pixels``.

        Raises:
            AnimegenError: for other strategies than ``clip_mask``, and as :meth:`generate`.
        """
        if not isinstance(self.strategy, ClipMask):
            raise AnimegenError(f"decoding={self.strategy_name} does not predict all codes at once: use clip_mask.")
        clip, _ = self._given(first, last, frames, Sampling(), None)
        was_training = self.training
        self.eval()
        try:
            context = self.context(images, first, last)
            hidden = self.strategy.first_pass(PixelReader(self, context), clip)
            motion = None
            if self.motion is not None:
                assert context is not None
                t = torch.arange(1, frames - 1, device=first.device) / (frames - 1)
                motion = self.motion(hidden, context.pair, t)[-1].unflatten(0, hidden.shape[:2])
            return self.predict(hidden).float().softmax(-1), motion
        finally:
            self.train(was_training)

    def _given(
        self, first: Tensor, last: Tensor, frames: int, sampling: Sampling, keys: Mapping[int, Tensor] | None
    ) -> tuple[Tensor, list[int]]:
        """Check the arguments of :meth:`generate`; return clips with the given frames, and their numbers in order."""
        if sampling.guidance != 1 and not self.end_dropout:
            raise AnimegenError(
                "guidance= needs a transformer that was also trained without the last frame (end_dropout above 0):"
                " leave guidance= at 1, or use another checkpoint."
            )
        if frames < 2:
            raise AnimegenError(f"A clip with a first and a last frame has at least 2 frames, not {frames}.")
        given = {0: first, frames - 1: last, **(keys or {})}
        wrong = next((t for t in given if not 0 <= t < frames), None)
        if wrong is not None:
            raise AnimegenError(f"keys= names frame {wrong} of a clip of {frames}: frames are counted from 0.")
        clip = first.new_zeros((len(first), frames, *first.shape[1:]))
        for t, codes in given.items():
            clip[:, t] = codes
        self.check(clip)
        return clip, sorted(given)

    def _fill(self, clip: Tensor, known: list[int], sampler: CodeSampler, images: Mapping[int, Tensor]) -> Tensor:
        """Return clips (B,T,h,w) in which all frames except the ``known`` ones are generated."""
        if self.strategy.supports_keys and self.key_frames:
            return self.strategy.fill(self, clip, known, sampler)
        # A transformer trained without key frames generates each segment between two given frames as a separate clip.
        for begin, end in pairwise(known):
            if end - begin > 1:
                segment = clip[:, begin : end + 1]
                ends = (images[begin], images[end]) if images else None
                reader = PixelReader(self, self.context(ends, segment[:, 0], segment[:, -1]))
                clip[:, begin : end + 1] = self.strategy.fill(reader, segment, [0, end - begin], sampler)
        return clip
