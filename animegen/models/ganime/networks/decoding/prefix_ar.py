"""Autoregressive decoding after a prefix of given frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.models.ganime.networks.decoding.base import CodePredictor, PrefixedStrategy
from animegen.models.ganime.networks.sampling import CodeSampler
from animegen.models.ganime.networks.tokens import (
    BETWEEN,
    START,
    TokenSequence,
    TrainingBatch,
    concatenated,
    level_mask,
)


class PrefixAR(PrefixedStrategy):
    """Autoregressive over the codes in raster order, frame after frame, after the given frames.

    A token of the generated part holds the code *before* the one that it predicts, and the position of both. In
    training the whole clip is one sequence.
    """

    shifted = True

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of codes."""
        return (frames - 2) * cells

    def training_batch(
        self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None
    ) -> TrainingBatch:
        """Return one sequence per clip; the last tokens predict all codes of all frames that are not given."""
        prefix = self.prefix(ids, keys, codes)
        frames = self.missing_frames(ids.shape[1], keys)
        generated = self._generated(ids, frames, codes, len(prefix.positions))
        assert generated.targets is not None
        tokens = concatenated(prefix, generated)
        cells = ids.shape[2] * ids.shape[3]
        return TrainingBatch(
            tokens,
            level_mask((tokens.index - len(prefix.positions) + 1).clamp_min(0)),
            torch.arange(len(ids), device=ids.device),
            generated.targets[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
        )

    def _generated(self, ids: Tensor, frames: list[int], codes: int, index: int) -> TokenSequence:
        """Return the start token and all codes of the frames but the last, each with the next position as target."""
        tokens = self.frame_tokens(ids[:, frames], frames, ids.shape[1], BETWEEN, index)
        start = ids.new_full((len(ids), 1), codes + START)
        tokens.ids = torch.cat([start, tokens.ids[:, :-1]], 1)
        tokens.targets = tokens.positions
        tokens.positions = torch.cat([tokens.positions.new_zeros((1, 3)), tokens.positions[:-1]])
        tokens.remaining = torch.cat([tokens.remaining.new_tensor([ids.shape[1] - 1]), tokens.remaining[:-1]])
        return tokens

    def fill(self, model: CodePredictor, clip: Tensor, known: list[int], sampler: CodeSampler) -> Tensor:
        """Generate code after code; with the cache, each token passes through the transformer once."""
        rows = sampler.with_unconditional(clip)
        keys = self.key_frames(known, clip.shape[1])
        frames = self.missing_frames(clip.shape[1], keys)
        prefix = self.prefix(rows, keys, model.codes)
        rest = self._generated(rows, frames, model.codes, len(prefix.positions))
        count = rest.ids.shape[1]
        cache = model.new_cache(len(rows), len(prefix.positions) + count, single=True)
        model.read(prefix, cache=cache)
        uniform = sampler.uniform(count)
        # Only the codes are unknown: the rest of all token vectors is computed at once.
        positions, rotations = model.embed_positions(rest)
        table = model.token_table()
        vectors = F.embedding(rest.ids[:, :1], table)
        generated = []
        for n in range(count):
            rotation = None
            if rotations is not None:
                query, key = rotations
                rotation = (query[0][n : n + 1], query[1][n : n + 1]), (key[0][n : n + 1], key[1][n : n + 1])
            hidden = model.backbone(vectors + positions[n : n + 1], rotations=rotation, cache=cache)
            codes = sampler.sample(sampler.guided_logits(model.predict(hidden[:, 0])), uniform[:, n])
            generated.append(codes)
            vectors = F.embedding(sampler.duplicated(codes).unsqueeze(1), table)
        filled = clip.clone()
        filled[:, frames] = torch.stack(generated, 1).view(len(clip), len(frames), *clip.shape[2:])
        return filled
