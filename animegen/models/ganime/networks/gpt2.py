"""The blocks of a GPT-2 from a file, for whoever wants to know whether a body that knows text is worth having."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.gpt import Body
from animegen.nn.weight_files import checked_state, load_data

#: Names of parts in files of the `transformers` library, and ours. Its ``Conv1D`` keeps matrices transposed.
_PARTS = {
    "ln_1": "norm1",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
#: Entries that are no weights of the body: masks as buffers, the tables of words and places, the output matrix.
_OTHERS = re.compile(r"(h\.\d+\.attn\.(bias|masked_bias)|wte\.weight|wpe\.weight|lm_head\.weight)$")


def load_gpt2_body(body: Body, path: str | Path, slots: nn.Module | None = None) -> str:
    """Replace the weights of a body by those of a GPT-2.

    The table of words is left out, since a code has nothing to do with the word of the same number. A table of places
    is stretched to the length of ours.

    Args:
        body: with as many layers and the same width as the file.
        path: a file of a state dict as `transformers` writes it (``pytorch_model.bin``).
        slots: table of places in a row, an ``nn.Embedding``, or ``None``.

    Returns:
        a sentence that tells what was loaded.

    Raises:
        AnimegenError: if the file is missing, is something else, or does not fit; then nothing was changed.
    """
    state = _read(Path(path))
    depth = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"h\.\d+\.", name)), default=-1)
    width = len(state["ln_f.weight"]) if "ln_f.weight" in state else 0
    dim = body.norm.normalized_shape[0]
    if (depth, width) != (len(body.blocks), dim):
        raise AnimegenError(
            f"body_weights={path} has {depth} layers of width {width}, the transformer has {len(body.blocks)} of"
            f" {dim}: set layers={depth} and dim={width}, or use another file."
        )
    found: dict[str, Tensor] = {"norm.weight": state.pop("ln_f.weight"), "norm.bias": state.pop("ln_f.bias")}
    for number in range(depth):
        for theirs, ours in _PARTS.items():
            for kind in ("weight", "bias"):
                value = state.pop(f"h.{number}.{theirs}.{kind}", None)
                if value is not None:
                    found[f"blocks.{number}.{ours}.{kind}"] = value.T if value.ndim == 2 else value
    unknown = [name for name in state if not _OTHERS.match(name)]
    expected = {name: weight.shape for name, weight in body.state_dict().items()}
    wrong = [name for name in expected if name not in found or found[name].shape != expected[name]] + unknown
    if wrong:
        raise AnimegenError(
            f"body_weights={path} is no GPT-2 of this shape: {len(wrong)} of its entries are missing, unknown or of"
            f" another size, the first is '{wrong[0]}'; use another file."
        )
    body.load_state_dict(found)
    report = f"{depth} layers of width {width} with {body.heads} heads from '{path}'"
    if slots is None or "wpe.weight" not in state:
        return f"{report}; no table of places."
    table = slots.weight
    assert isinstance(table, Tensor)
    stretched = F.interpolate(state["wpe.weight"].T[None].float(), size=len(table), mode="linear", align_corners=True)
    with torch.no_grad():
        table.copy_(stretched[0].T)
    return f"{report}; the table of {len(state['wpe.weight'])} places stretched to {len(table)}."


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AnimegenError(f"body_weights={path} does not exist: give a file of a GPT-2, or leave it out.")
    content = load_data(path, "weights of a GPT-2", "give a pytorch_model.bin or .pt file")
    state = checked_state(content, f"body_weights={path}")
    return {name.removeprefix("transformer."): value for name, value in state.items()}
