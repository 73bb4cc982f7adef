"""Blocks of a GPT-2 from a file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from animegen.engine import Objective
from animegen.engine.callbacks import StopAfter
from animegen.engine.lightning import LightningAdapter
from animegen.errors import AnimegenError
from animegen.losses import L1
from animegen.models.ganime import Ganime
from animegen.models.ganime.networks import CodeTransformer, Tokenizer
from animegen.models.ganime.networks.gpt import GPTBackbone

DIM, HEADS, LAYERS = 16, 2, 2


def gpt2_state() -> dict[str, Tensor]:
    """A state dict as the library of Hugging Face writes GPT-2's, with random weights."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    state = {"wte.weight": random(50, DIM), "wpe.weight": random(5, DIM)}
    for n in range(LAYERS):
        for name, shape in (("attn.c_attn", (DIM, 3 * DIM)), ("attn.c_proj", (DIM, DIM))):
            state |= {f"h.{n}.{name}.weight": random(*shape), f"h.{n}.{name}.bias": random(shape[1])}
        for name, shape in (("mlp.c_fc", (DIM, 4 * DIM)), ("mlp.c_proj", (4 * DIM, DIM))):
            state |= {f"h.{n}.{name}.weight": random(*shape), f"h.{n}.{name}.bias": random(shape[1])}
        for name in ("ln_1", "ln_2"):
            state |= {f"h.{n}.{name}.weight": 1 + random(DIM), f"h.{n}.{name}.bias": random(DIM)}
        state[f"h.{n}.attn.bias"] = torch.ones(1, 1, 5, 5)
    return state | {"ln_f.weight": 1 + random(DIM), "ln_f.bias": random(DIM)}


def gpt2(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """GPT-2's blocks written out with the weights as they lie in the file: x @ weight + bias."""
    for n in range(LAYERS):
        w = {name.removeprefix(f"h.{n}."): value for name, value in state.items() if name.startswith(f"h.{n}.")}
        normed = F.layer_norm(x, (DIM,), w["ln_1.weight"], w["ln_1.bias"])
        query, key, value = (normed @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"]).split(DIM, -1)
        heads = []
        for part in range(HEADS):
            q, k, v = (t[..., part * 8 : part * 8 + 8] for t in (query, key, value))
            scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
            heads.append(scores.softmax(-1) @ v)
        x = x + torch.cat(heads, -1) @ w["attn.c_proj.weight"] + w["attn.c_proj.bias"]
        normed = F.layer_norm(x, (DIM,), w["ln_2.weight"], w["ln_2.bias"])
        hidden = normed @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"]
        hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
        x = x + hidden @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
    return F.layer_norm(x, (DIM,), state["ln_f.weight"], state["ln_f.bias"])


def made(path: Path, layers: int = LAYERS, position: str = "learned1d") -> CodeTransformer:
    settings = {"layers": layers, "heads": HEADS, "dim": DIM, "position": position}
    return CodeTransformer(7, (2, 2), 3, body_weights=str(path), **settings)  # type: ignore[arg-type]


def test_blocks_compute_what_gpt2_computes_and_positions_are_interpolated(tmp_path: Path) -> None:
    state = gpt2_state()
    torch.save({f"transformer.{name}": value for name, value in state.items()}, tmp_path / "gpt2.bin")
    network = made(tmp_path / "gpt2.bin")
    report = network.load_pretrained()
    assert report.startswith("2 layers of width 16 with 2 heads from ")
    assert report.endswith("the position embedding of 5 entries interpolated to 13.")
    x = torch.randn(1, 6, DIM)
    causal = torch.ones(6, 6).tril().bool()
    assert torch.allclose(network.backbone(x, causal), gpt2(state, x), atol=1e-5)
    # 13 entries over 5: every third one equals one of theirs, the second lies a third of the way to the next.
    table, theirs = network.position_embeddings["index"].weight, state["wpe.weight"]
    assert torch.allclose(table[::3], theirs)
    assert torch.allclose(table[1], theirs[0].lerp(theirs[1], 1 / 3), atol=1e-6)


class Frames(IterableDataset):
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield {"frame": torch.zeros(1, 3, 4, 4)}


def trained(transformer: CodeTransformer, state: dict[str, Tensor] | None = None) -> Ganime:
    """Train the tokenizer before a transformer for one step; its weights and averages are then as they began."""
    adam = partial(torch.optim.Adam, lr=1e-3)
    tokenizer = Tokenizer(8, [1, 1], 1, [], 8, {"dim": 4, "codes": 7, "kmeans": False}, groups=4)
    l1 = {"loss": L1(), "reads": {"image": "fake", "reference": "real"}}
    model = Ganime(
        tokenizer,
        transformer,
        tokenizer_steps=2,
        frame_size=(4, 4),
        optimizers={"tokenizer": adam, "transformer": adam},
        objectives={"tokenizer": Objective(l1=l1)},
        ema={"networks": ["transformer"], "decay": 0.5},
        adaptive_cap=None,
    )
    if state is not None:
        model.transformer.load_state_dict(state)  # type: ignore[union-attr]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[StopAfter(1)],
    )
    trainer.fit(LightningAdapter(model), DataLoader(Frames(), batch_size=None))
    return model


def test_weights_are_taken_over_once_before_training_and_the_averages_begin_with_them(tmp_path: Path) -> None:
    torch.save(gpt2_state(), tmp_path / "gpt2.pt")
    model = trained(made(tmp_path / "gpt2.pt", position="learned"))
    network = model.transformer
    assert network is not None
    expected = gpt2_state()["ln_f.weight"]
    assert torch.equal(network.backbone.norm.weight, expected)
    with model.ema_scope():
        assert torch.equal(network.backbone.norm.weight, expected)
    # What comes from a checkpoint needs the file no more.
    network.backbone.norm.weight.data.zero_()
    other = trained(made(tmp_path / "gone.pt", position="learned"), network.state_dict()).transformer
    assert other is not None
    assert (other.backbone.norm.weight == 0).all()


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    state = gpt2_state()
    torch.save(state, tmp_path / "gpt2.pt")
    torch.save({**state, "h.0.attn.rotary.weight": torch.ones(1)}, tmp_path / "more.pt")
    torch.save({name: value for name, value in state.items() if name != "h.1.mlp.c_fc.bias"}, tmp_path / "less.pt")
    torch.save([1], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for file, layers, sentence in (
        ("gpt2.pt", 3, "has 2 layers of width 16, the transformer has 3 of 16: set layers=2 and dim=16"),
        ("more.pt", 2, "'h.0.attn.rotary.weight'"),
        ("less.pt", 2, r"'blocks.1.up.bias'"),
        ("list.pt", 2, "holds no state dict"),
        ("text.pt", 2, "cannot be read as weights"),
        ("none.pt", 2, "does not exist"),
    ):
        network = made(tmp_path / file, layers)
        before = [p.clone() for p in network.parameters()]
        with pytest.raises(AnimegenError, match=sentence):
            network.load_pretrained()
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_width_must_divide() -> None:
    with pytest.raises(AnimegenError, match="dim=20 is not a multiple of twice heads=4"):
        GPTBackbone(1, 4, 20)
