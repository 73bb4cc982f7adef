"""Loading the blocks of a pretrained GPT-2."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.gpt import GPTBackbone
from animegen.nn.weight_files import checked_state, load_data

#: Names of modules in files of the ``transformers`` library, and here. Its ``Conv1D`` stores transposed matrices.
_MODULES = {
    "ln_1": "norm1",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
#: Entries that are not weights of the blocks: mask buffers, embeddings of words and positions, the output matrix.
_IGNORED = re.compile(r"(h\.\d+\.attn\.(bias|masked_bias)|wte\.weight|wpe\.weight|lm_head\.weight)$")


def load_gpt2(backbone: GPTBackbone, path: str | Path, position_table: nn.Module | None = None) -> str:
    """Replace the weights of a backbone by those of a GPT-2.

    Word embeddings are ignored, since codes have no relation to words. The position embedding is interpolated to the
    length of ``position_table``.

    Args:
        backbone: has as many layers and the same width as the file.
        path: state dict in the format of the ``transformers`` library (``pytorch_model.bin``).
        position_table: position embedding, an ``nn.Embedding``, or ``None``.

    Returns:
        a sentence that describes the loaded weights.

    Raises:
        AnimegenError: if the file is missing, damaged, or does not fit; then nothing was changed.
    """
    state = _read(Path(path))
    depth = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"h\.\d+\.", name)), default=-1)
    width = len(state["ln_f.weight"]) if "ln_f.weight" in state else 0
    dim = backbone.norm.normalized_shape[0]
    if (depth, width) != (len(backbone.blocks), dim):
        raise AnimegenError(
            f"body_weights={path} has {depth} layers of width {width}, the transformer has {len(backbone.blocks)} of"
            f" {dim}: set layers={depth} and dim={width}, or use another file."
        )
    converted: dict[str, Tensor] = {"norm.weight": state.pop("ln_f.weight"), "norm.bias": state.pop("ln_f.bias")}
    for number in range(depth):
        for source, target in _MODULES.items():
            for kind in ("weight", "bias"):
                value = state.pop(f"h.{number}.{source}.{kind}", None)
                if value is not None:
                    converted[f"blocks.{number}.{target}.{kind}"] = value.T if value.ndim == 2 else value
    unknown = [name for name in state if not _IGNORED.match(name)]
    expected = {name: weight.shape for name, weight in backbone.state_dict().items()}
    wrong = [name for name in expected if name not in converted or converted[name].shape != expected[name]] + unknown
    if wrong:
        raise AnimegenError(
            f"body_weights={path} is not a GPT-2 of this shape: {len(wrong)} of its entries are missing, unknown or of"
            f" another size, the first is '{wrong[0]}'; use another file."
        )
    backbone.load_state_dict(converted)
    report = f"{depth} layers of width {width} with {backbone.heads} heads from '{path}'"
    if position_table is None or "wpe.weight" not in state:
        return f"{report}; no position embedding."
    table = position_table.weight
    assert isinstance(table, Tensor)
    resized = F.interpolate(state["wpe.weight"].T[None].float(), size=len(table), mode="linear", align_corners=True)
    with torch.no_grad():
        table.copy_(resized[0].T)
    return f"{report}; the position embedding of {len(state['wpe.weight'])} entries interpolated to {len(table)}."


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AnimegenError(f"body_weights={path} does not exist: give a file with a GPT-2, or leave it out.")
    content = load_data(path, "weights of a GPT-2", "give a pytorch_model.bin or .pt file")
    state = checked_state(content, f"body_weights={path}")
    return {name.removeprefix("transformer."): value for name, value in state.items()}
