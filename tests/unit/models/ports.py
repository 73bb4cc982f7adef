"""The generators of the two PyTorch ports of AnimeGANv2, written down once more after their published code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

# In the order of the graph: channels in and out (of the full width), kernel, stride; "residual" has two channel counts.
UNITS = [
    (3, 32, 7, 1),
    (32, 64, 3, 2),
    (64, 64, 3, 1),
    (64, 128, 3, 2),
    (128, 128, 3, 1),
    (128, 128, 3, 1),
    "residual 128 256",
    "residual 256 256",
    "residual 256 256",
    "residual 256 256",
    (256, 128, 3, 1),
    "double",
    (128, 128, 3, 1),
    (128, 128, 3, 1),
    "double",
    (128, 64, 3, 1),
    (64, 64, 3, 1),
    (64, 32, 7, 1),
]

# Names of convolution and norm of each unit (of three convolutions and norms of each residual), in the same order.
FIRST = [
    *(("block_a.0.1", "block_a.0.2"), ("block_a.1.1", "block_a.1.2"), ("block_a.2.1", "block_a.2.2")),
    *(("block_b.0.1", "block_b.0.2"), ("block_b.1.1", "block_b.1.2"), ("block_c.0.1", "block_c.0.2")),
    *(tuple(f"block_c.{i}.layers.{part}" for part in ("0.1", "0.2", "1.1", "1.2", "2", "3")) for i in (1, 2, 3, 4)),
    ("block_c.5.1", "block_c.5.2"),
    *((), ("block_d.0.1", "block_d.0.2"), ("block_d.1.1", "block_d.1.2"), ()),
    *(("block_e.0.1", "block_e.0.2"), ("block_e.1.1", "block_e.1.2"), ("block_e.2.1", "block_e.2.2")),
]
SECOND = [
    *((f"conv_block1.{i}.conv", f"conv_block1.{i}.ins_norm") for i in range(3)),
    *((f"conv_block2.{i}.conv", f"conv_block2.{i}.ins_norm") for i in range(2)),
    ("res_blocks.0.conv", "res_blocks.0.ins_norm"),
    *(
        (
            *(f"res_blocks.{i}.conv_block.conv", f"res_blocks.{i}.conv_block.ins_norm"),
            *(f"res_blocks.{i}.conv_block2.conv", f"res_blocks.{i}.conv_block2.ins_norm"),
            *(f"res_blocks.{i}.conv", f"res_blocks.{i}.norm"),
        )
        for i in range(1, 5)
    ),
    ("res_blocks.5.conv", "res_blocks.5.ins_norm"),
    (),
    *((f"conv_block3.{i}.conv", f"conv_block3.{i}.ins_norm") for i in range(2)),
    (),
    *((f"conv_block4.{i}.conv", f"conv_block4.{i}.ins_norm") for i in range(3)),
]
PORTS = {
    "animegan2-pytorch": (FIRST, "out_layer.0", False),
    "pytorch-animegan": (SECOND, "decode_blocks.0", True),
}


def weights(port: str, share: int = 4) -> State:
    """Random weights of a port's generator with 1/``share`` of the channels."""
    names, last, bias = PORTS[port]
    state: State = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int, with_bias: bool = False) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        if with_bias:
            state[f"{name}.bias"] = torch.randn(outputs) / 5

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + torch.randn(channels) / 5, torch.randn(channels) / 5

    for unit, name in zip(UNITS, names, strict=True):
        if isinstance(unit, tuple):
            inputs, outputs, kernel, _ = unit
            conv(name[0], outputs // share, inputs if inputs == 3 else inputs // share, kernel)
            norm(name[1], outputs // share)
        elif unit.startswith("residual"):
            inputs, outputs = (int(word) // share for word in unit.split()[1:])
            conv(name[0], 2 * inputs, inputs, 1)
            norm(name[1], 2 * inputs)
            conv(name[2], 2 * inputs, 1, 3, with_bias=True)
            norm(name[3], 2 * inputs)
            conv(name[4], outputs, 2 * inputs, 1)
            norm(name[5], outputs)
    conv(last, 3, 32 // share, 1, with_bias=bias)
    return state


def draw(port: str, state: State, x: Tensor, aligned: bool) -> Tensor:
    """What the port's network computes."""
    names, last, _ = PORTS[port]

    def normed(x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)
        y = (x - mean) / (variance + 1e-5).sqrt()
        return y * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        margin = state[f"{name}.weight"].shape[-1] // 2
        border = (0, 1, 0, 1) if stride == 2 else (margin,) * 4
        padded = F.pad(x, border, mode="reflect") if margin else x
        return F.conv2d(padded, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, groups=groups)

    for unit, name in zip(UNITS, names, strict=True):
        if isinstance(unit, tuple):
            x = F.leaky_relu(normed(conv(x, name[0], unit[3]), name[1]), 0.2)
        elif unit == "double":
            size = [2 * side for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=aligned)
        else:
            y = F.leaky_relu(normed(conv(x, name[0]), name[1]), 0.2)
            y = F.leaky_relu(normed(conv(y, name[2], groups=y.shape[1]), name[3]), 0.2)
            y = normed(conv(y, name[4]), name[5])
            x = x + y if x.shape == y.shape else y
    return torch.tanh(conv(x, last))
