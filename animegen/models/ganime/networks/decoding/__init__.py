"""Decoding strategies: the order in which the codes of a clip are predicted, and from which context.

A strategy has no parameters. It builds the token sequences for training, with their attention mask, and fills clips in
generation. The last tokens of a sequence are those that predict a code.

====================  ====================================================================================
``prefix_ar``         :class:`PrefixAR`: autoregressive over all codes, after the given frames
``clip_mask``         :class:`ClipMask`: iterative decoding of all masked codes in parallel (MaskGIT)
``frame_block_mask``  :class:`FrameBlockMask`: the same, frame by frame
``frame_parallel``    :class:`FrameParallel`: one frame per pass, from the last and the previous ones (GANime)
``torch_ganime``      :class:`TorchGANime`: the variant of the TorchGANime project
====================  ====================================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.ganime.networks.decoding.base import CodePredictor, DecodingStrategy
from animegen.models.ganime.networks.decoding.frame_parallel import FrameParallel, TorchGANime
from animegen.models.ganime.networks.decoding.masked import ClipMask, FrameBlockMask
from animegen.models.ganime.networks.decoding.prefix_ar import PrefixAR

__all__ = [
    "STRATEGIES",
    "ClipMask",
    "CodePredictor",
    "DecodingStrategy",
    "FrameBlockMask",
    "FrameParallel",
    "PrefixAR",
    "TorchGANime",
    "make_strategy",
]

STRATEGIES: dict[str, type[DecodingStrategy]] = {
    "prefix_ar": PrefixAR,
    "clip_mask": ClipMask,
    "frame_block_mask": FrameBlockMask,
    "frame_parallel": FrameParallel,
    "torch_ganime": TorchGANime,
}


def make_strategy(name: str, options: Mapping[str, Any]) -> DecodingStrategy:
    """Build a strategy from its name and those of the options that are not ``None``.

    Raises:
        AnimegenError: for an unknown name, and for an option that the strategy does not have.
    """
    if name not in STRATEGIES:
        raise AnimegenError(f"decoding={name} is unknown: use {', '.join(STRATEGIES)}.{did_you_mean(name, STRATEGIES)}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [key for key in inspect.signature(STRATEGIES[name]).parameters if key not in ("args", "kwargs")]
    for key, value in given.items():
        if key not in known:
            raise AnimegenError(
                f"decoding={name} has no option {key}={value}; it has: {', '.join(known) or 'none'}."
                + did_you_mean(key, known)
            )
    return STRATEGIES[name](**given)
