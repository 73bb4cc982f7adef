"""Generators of AnimeGANv2 that were trained or converted with the two widely used PyTorch ports.

Facts from the ports' published code:

*bryandlee/animegan2-pytorch*, ``model.py`` (MIT licence). Sequential blocks ``block_a`` to ``block_e`` of units
(0 padding, 1 convolution, 2 group norm of one group, 3 activation); places 1 to 4 of ``block_c`` are inverted residuals
whose ``layers`` are a 1x1 unit, a depthwise unit with bias, a 1x1 convolution and a norm; ``out_layer.0`` comes before
tanh and has no bias. ``forward`` resizes with aligned corners unless told otherwise, and so do its ``torch.hub``
functions; its ``test.py`` resizes without, which ``model.generator.upsample=bilinear`` chooses here.

*ptran1203/pytorch-animeGAN*, ``models/anime_gan_v2.py``, ``conv_blocks.py`` and ``layers.py`` as of the release of its
v2 weights. Saved as ``{"model_state_dict": ..., "epoch": ...}``, after training on several devices with the prefix
``module.``. The same graph in blocks ``conv_block1`` to ``conv_block4`` and ``res_blocks`` of units (``conv``,
``ins_norm``, which is a group norm of one group); inverted residuals are ``conv_block``, ``conv_block2``, ``conv`` and
``norm``. Its last convolution ``decode_blocks.0`` *has* a bias, unlike the published network. It resizes without
aligned corners.

Both pad by reflection, at stride 2 to the right and at the bottom, normalise with epsilon 1e-5, and end in tanh, as
:class:`~animegen.models.animegan.networks.v2.AnimeGANv2` does. An early state of the second port (``upsample1``,
``upsample2``, norms over channels alone) was another network and is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from animegen.engine.weight_conversion import Importer

_STEM_CHANNELS = 32
#: Places in ``AnimeGANv2.layers``.
_DOWN, _HALF, _BODY, _RESIDUALS, _AFTER, _UP, _LAST = (0, 1, 2), (3, 4), 5, (6, 7, 8, 9), 10, (12, 13), (15, 16, 17)


def _unit(theirs: str, place: int, conv: str, norm: str) -> dict[str, str]:
    return {f"{theirs}.{conv}": f"layers.{place}.conv", f"{theirs}.{norm}": f"layers.{place}.norm"}


def _residual(place: int, names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: f"layers.{place}.{ours}" for theirs, ours in names.items()}


_RESIDUAL_PARTS = ("expand.conv", "expand.norm", "depthwise", "depthwise_norm", "project", "project_norm")


def _animegan2_pytorch() -> dict[str, str]:
    modules = {"out_layer.0": "to_rgb"}
    blocks = {"block_a": _DOWN, "block_b": _HALF, "block_d": _UP, "block_e": _LAST}
    for block, places in blocks.items():
        for index, place in enumerate(places):
            modules |= _unit(f"{block}.{index}", place, "1", "2")
    modules |= _unit("block_c.0", _BODY, "1", "2") | _unit("block_c.5", _AFTER, "1", "2")
    for index, place in enumerate(_RESIDUALS, start=1):
        parts = [f"block_c.{index}.layers.{part}" for part in ("0.1", "0.2", "1.1", "1.2", "2", "3")]
        modules |= _residual(place, dict(zip(parts, _RESIDUAL_PARTS, strict=True)))
    return modules


def _pytorch_animegan() -> dict[str, str]:
    modules = {"decode_blocks.0": "to_rgb"}
    blocks = {"conv_block1": _DOWN, "conv_block2": _HALF, "conv_block3": _UP, "conv_block4": _LAST}
    for block, places in blocks.items():
        for index, place in enumerate(places):
            modules |= _unit(f"{block}.{index}", place, "conv", "ins_norm")
    modules |= _unit("res_blocks.0", _BODY, "conv", "ins_norm") | _unit("res_blocks.5", _AFTER, "conv", "ins_norm")
    for index, place in enumerate(_RESIDUALS, start=1):
        inner = ("conv_block.conv", "conv_block.ins_norm", "conv_block2.conv", "conv_block2.ins_norm", "conv", "norm")
        parts = [f"res_blocks.{index}.{part}" for part in inner]
        modules |= _residual(place, dict(zip(parts, _RESIDUAL_PARTS, strict=True)))
    return modules


def _overrides(state: Mapping[str, Tensor], stem: str, *settings: str) -> list[str]:
    """Choose a v2 of the width that the first convolution has. Its discriminator is not in the file: there is none."""
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


IMPORTERS = (
    Importer(
        name="animegan2-pytorch",
        about="generators of bryandlee/animegan2-pytorch",
        modules=_animegan2_pytorch(),
        overrides=lambda state: _overrides(state, "block_a.0.1.weight", "upsample=bilinear_align"),
    ),
    Importer(
        name="pytorch-animegan",
        about="generators v2 of ptran1203/pytorch-animeGAN",
        modules=_pytorch_animegan(),
        overrides=_of_pytorch_animegan,
    ),
)
