"""Vector quantisation of feature maps, an interface to the library vector-quantize-pytorch.

The library implements nearest codes, moving averages, k-means initialisation, replacement of dead codes, and residual
and finite scalar quantisation, in float32. This module adds an interface for feature maps, statistics of codebook
usage, and a warning when the codebook collapses.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.precision import at_least_float32

log = logging.getLogger(__name__)

#: Largest number of codes and of channels of finite scalar quantisation, whose buffers are made at once.
_LARGEST = 2**16


class Quantized(NamedTuple):
    """A quantised map.

    Attributes:
        values: (B,D,h,w), the code vectors, with straight-through gradients to the map.
        codes: int64 (B,h,w), or (B,h,w,n) for n residual levels.
        nearest: (B,D,h,w), the same vectors, with gradients to a codebook that is learned by gradients.
    """

    values: Tensor
    codes: Tensor
    nearest: Tensor


class Usage(NamedTuple):
    """Statistics of codebook usage.

    Attributes:
        perplexity: exponential of the entropy of the codes, the effective number of codes.
        used: fraction of the codes that occur, 0 to 1.
    """

    perplexity: Tensor
    used: Tensor


class Quantizer(nn.Module):
    """Replace each vector of a map (B,dim,h,w) by the nearest vector of a codebook.

    Args:
        dim: channels of the maps.
        codes: size of the codebook.
        decay: decay of the moving averages of the codebook (van den Oord et al. 2017, appendix).
        ema: ``False`` learns the codebook by gradients; then the commitment loss needs ``codebook`` > 0.
        cosine: compare vectors by cosine similarity; more codes stay in use.
        kmeans: initialise the codebook by k-means on the first training batch.
        reset: a code with fewer assignments per batch, on average, is replaced by a vector of the current batch; 0 for
            never.
        levels: use finite scalar quantisation (Mentzer et al. 2023) with these numbers of levels for a few channels,
            such as [8, 5, 5, 5]. There is no learned codebook, ``codes`` is the product of the levels, and the other
            settings have no effect.
        residual: number of quantisation stages; each further one quantises the residual of the one before.
        rotation: propagate gradients by the rotation trick (Fifty et al. 2024).
        alarm: training batches after which a perplexity below 5 % of the codes is reported.

    Raises:
        AnimegenError: for settings that are invalid or cannot be combined.
    """

    batches: Tensor

    def __init__(
        self,
        dim: int,
        codes: int = 1024,
        decay: float = 0.99,
        ema: bool = True,
        cosine: bool = False,
        kmeans: bool = True,
        reset: float = 1.0,
        levels: Sequence[int] | None = None,
        residual: int = 1,
        rotation: bool = False,
        alarm: int = 5000,
    ) -> None:
        super().__init__()
        if codes < 2 or residual < 1 or reset < 0 or not 0 <= decay < 1:
            raise AnimegenError(
                f"A quantiser needs codes >= 2, residual >= 1, reset >= 0 and decay from 0 to below 1, not {codes},"
                f" {residual}, {reset} and {decay}: correct them."
            )
        if levels is not None and residual > 1:
            raise AnimegenError("Finite scalar quantisation has no residual levels: set levels=null or residual=1.")
        self.dim, self.ema, self.residual, self.alarm, self.reset = dim, ema, residual, alarm, reset
        self.scalar = levels is not None
        self.codes = math.prod(levels) if levels is not None else codes
        if levels is not None and not (min(levels, default=0) > 1 and max(self.codes, dim) <= _LARGEST):
            raise AnimegenError(
                f"Finite scalar quantisation needs levels of 2 or more, at most {_LARGEST} codes as their product and"
                f" as many channels, not levels={list(levels)} and dim={dim}: correct them."
            )
        settings: dict[str, Any] = {
            "codebook_size": codes,
            "decay": decay,
            "kmeans_init": kmeans,
            "use_cosine_sim": cosine,
            "threshold_ema_dead_code": reset,
            "commitment_weight": 0.0,  # part of the loss term instead
            "rotation_trick": rotation,
            "learnable_codebook": not ema,
            "ema_update": ema,
        }
        library = _library()
        self.inner: nn.Module
        if levels is not None:
            with torch.device("cpu"):  # it reads buffers, which have no values while a checkpoint is examined (meta)
                self.inner = library.FSQ(levels=list(levels), dim=dim)
        elif residual > 1:
            self.inner = library.ResidualVQ(dim=dim, num_quantizers=residual, **settings)
        else:
            self.inner = library.VectorQuantize(dim=dim, **settings)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self._warned = self._shared = False

    def forward(self, maps: Tensor) -> Quantized:
        """Quantise maps (B,dim,h,w). In training mode this also updates the codebook."""
        height, width = maps.shape[-2:]
        if self.training and not self._shared:
            self._synchronise()
        with torch.autocast(maps.device.type, enabled=False):
            tokens = at_least_float32(maps).flatten(2).transpose(1, 2)
            values, codes = self.inner(tokens)[:2]
        codes = codes.long().unflatten(1, (height, width))
        if self.training:
            self.batches += 1
            self._check_collapse(codes)
        values = _as_map(values, height, width)
        nearest = values.detach() if self.ema or self.scalar else self.lookup(codes)
        return Quantized(values.to(maps.dtype), codes, nearest.to(maps.dtype))

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors (B,dim,h,w) of codes (B,h,w), or (B,h,w,n) with residual levels."""
        height, width = codes.shape[1:3]
        flat = codes.flatten(1, 2)
        if self.scalar:
            return _as_map(self.inner.indices_to_codes(flat), height, width)  # type: ignore[operator]
        return _as_map(self.inner.get_output_from_indices(flat), height, width)  # type: ignore[operator]

    def usage(self, codes: Tensor) -> Usage:
        """Return the codebook usage of a batch of codes; of the first residual level if there are several."""
        first = codes[..., 0] if self.residual > 1 else codes
        return usage(first, self.codes)

    def dead(self) -> Tensor | None:
        """Return the number of dead codes: those with at most ``reset`` (at least 0.01) assignments per batch.

        ``None`` if assignments are not counted: for finite scalar and residual quantisation, and for codebooks that are
        learned by gradients without resets.
        """
        counts = getattr(getattr(self.inner, "_codebook", None), "cluster_size", None)
        if counts is None or not (self.ema or self.reset):
            return None
        return (counts <= max(self.reset, 0.01)).float().sum()

    def _synchronise(self) -> None:
        """Enable synchronisation of the codebook over all processes.

        The library checks for distributed training at construction, before Lightning starts the processes.
        """
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return
        self._shared = True
        sample = _library().vector_quantize_pytorch.sample_vectors_distributed
        for book in self.inner.modules():
            if hasattr(book, "all_reduce_fn"):
                book.use_ddp = True  # type: ignore[assignment]
                book.all_reduce_fn = book.kmeans_all_reduce_fn = dist.all_reduce  # type: ignore[assignment]
                book.sample_fn = book.replace_sample_fn = sample

    def _check_collapse(self, codes: Tensor) -> None:
        """Warn once if few codes are used after ``alarm`` batches."""
        if self._warned or int(self.batches) != self.alarm:
            return
        self._warned = True
        found = float(self.usage(codes).perplexity)
        # The perplexity is limited by the number of tokens of the batch.
        if found < 0.05 * min(self.codes, codes[..., 0].numel() if self.residual > 1 else codes.numel()):
            log.warning(
                "The codebook has collapsed: the perplexity of its %d codes is %.1f after %d batches. Try a smaller"
                " learning rate, cosine=true, kmeans=true, a larger reset, or a larger batch.",
                self.codes,
                found,
                self.alarm,
            )


def usage(codes: Tensor, size: int) -> Usage:
    """Return the usage of a codebook of ``size`` by codes of any shape, int64."""
    counts = torch.bincount(codes.flatten(), minlength=size).to(torch.float32)
    share = counts / counts.sum()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return Usage(entropy.exp(), (counts > 0).float().mean())


def _library() -> Any:
    """Import the library and, with it, torch's compiler: only for models that quantize."""
    import vector_quantize_pytorch

    # Its only message would interrupt the progress display.
    vector_quantize_pytorch.vector_quantize_pytorch.logger.disable("vector_quantize_pytorch")
    return vector_quantize_pytorch


def _as_map(tokens: Tensor, height: int, width: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))
