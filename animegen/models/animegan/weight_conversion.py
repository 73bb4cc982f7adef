"""Conversion of AnimeGANv2 generators from the two widely used PyTorch ports.

Facts from the published code of the ports:

*bryandlee/animegan2-pytorch*, ``model.py`` (MIT licence). Sequential blocks ``block_a`` to ``block_e`` of units
(0 padding, 1 convolution, 2 group norm with one group, 3 activation). Entries 1 to 4 of ``block_c`` are inverted
residuals, whose ``layers`` are a 1x1 unit, a depthwise unit with bias, a 1x1 convolution and a norm. ``out_layer.0``,
before tanh, has no bias. ``forward`` upsamples with aligned corners by default, and so do its ``torch.hub`` functions;
its ``test.py`` does not, which corresponds to ``model.generator.upsample=bilinear`` here.

*ptran1203/pytorch-animeGAN*, ``models/anime_gan_v2.py``, ``conv_blocks.py`` and ``layers.py`` as of the release of its
v2 weights. Saved as ``{"model_state_dict": ..., "epoch": ...}``, after training on several devices with the prefix
``module.``. The same graph in blocks ``conv_block1`` to ``conv_block4`` and ``res_blocks`` of units (``conv``,
``ins_norm``, which is a group norm with one group); inverted residuals have ``conv_block``, ``conv_block2``, ``conv``
and ``norm``. Its last convolution ``decode_blocks.0`` *has* a bias, unlike the published network. It upsamples without
aligned corners.

Both pad by reflection, at stride 2 on the right and at the bottom, normalise with epsilon 1e-5, and end in tanh, as
:class:`~animegen.models.animegan.networks.v2.AnimeGANv2` does. An early version of the second port (``upsample1``,
``upsample2``, norms over channels only) was another network and is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from animegen.engine.weight_conversion import WeightConversion

_STEM_CHANNELS = 32
#: Indices in ``AnimeGANv2.layers``.
_DOWN, _HALF, _BODY, _RESIDUALS, _AFTER, _UP, _LAST = (0, 1, 2), (3, 4), 5, (6, 7, 8, 9), 10, (12, 13), (15, 16, 17)


def _unit(source: str, index: int, conv: str, norm: str) -> dict[str, str]:
    return {f"{source}.{conv}": f"layers.{index}.conv", f"{source}.{norm}": f"layers.{index}.norm"}


def _residual(index: int, names: Mapping[str, str]) -> dict[str, str]:
    return {source: f"layers.{index}.{target}" for source, target in names.items()}


_RESIDUAL_PARTS = ("expand.conv", "expand.norm", "depthwise", "depthwise_norm", "project", "project_norm")


def _animegan2_pytorch() -> dict[str, str]:
    modules = {"out_layer.0": "to_rgb"}
    blocks = {"block_a": _DOWN, "block_b": _HALF, "block_d": _UP, "block_e": _LAST}
    for block, indices in blocks.items():
        for number, index in enumerate(indices):
            modules |= _unit(f"{block}.{number}", index, "1", "2")
    modules |= _unit("block_c.0", _BODY, "1", "2") | _unit("block_c.5", _AFTER, "1", "2")
    for number, index in enumerate(_RESIDUALS, start=1):
        parts = [f"block_c.{number}.layers.{part}" for part in ("0.1", "0.2", "1.1", "1.2", "2", "3")]
        modules |= _residual(index, dict(zip(parts, _RESIDUAL_PARTS, strict=True)))
    return modules


def _pytorch_animegan() -> dict[str, str]:
    modules = {"decode_blocks.0": "to_rgb"}
    blocks = {"conv_block1": _DOWN, "conv_block2": _HALF, "conv_block3": _UP, "conv_block4": _LAST}
    for block, indices in blocks.items():
        for number, index in enumerate(indices):
            modules |= _unit(f"{block}.{number}", index, "conv", "ins_norm")
    modules |= _unit("res_blocks.0", _BODY, "conv", "ins_norm") | _unit("res_blocks.5", _AFTER, "conv", "ins_norm")
    for number, index in enumerate(_RESIDUALS, start=1):
        inner = ("conv_block.conv", "conv_block.ins_norm", "conv_block2.conv", "conv_block2.ins_norm", "conv", "norm")
        parts = [f"res_blocks.{number}.{part}" for part in inner]
        modules |= _residual(index, dict(zip(parts, _RESIDUAL_PARTS, strict=True)))
    return modules


def _overrides(state: Mapping[str, Tensor], stem: str, *settings: str) -> list[str]:
    """Return overrides for a v2 with the width of the first convolution, without a discriminator."""
    width = state[stem].shape[0] / _STEM_CHANNELS if stem in state and state[stem].dim() else 1.0
    return [
        "model=animegan/v2",
        "size=base",
        "ablation=animegan/no_discriminator",
        f"model.generator.width={width:g}",
        *(f"++model.generator.{setting}" for setting in settings),
    ]


def _of_pytorch_animegan(state: Mapping[str, Tensor]) -> list[str]:
    biased = ["output_bias=true"] if "decode_blocks.0.bias" in state else []
    return _overrides(state, "conv_block1.0.conv.weight", *biased)


CONVERSIONS = (
    WeightConversion(
        name="animegan2-pytorch",
        about="generators of bryandlee/animegan2-pytorch",
        modules=_animegan2_pytorch(),
        overrides=lambda state: _overrides(state, "block_a.0.1.weight", "upsample=bilinear_align"),
    ),
    WeightConversion(
        name="pytorch-animegan",
        about="generators v2 of ptran1203/pytorch-animeGAN",
        modules=_pytorch_animegan(),
        overrides=_of_pytorch_animegan,
    ),
)
