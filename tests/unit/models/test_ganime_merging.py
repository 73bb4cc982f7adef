"""Transformers whose blocks process squares of codes as one token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.models.ganime import Ganime
from animegen.models.ganime.networks import CodeTransformer, Tokenizer
from animegen.models.ganime.networks.merging import Squares, TokenMerging, merged_mask
from animegen.models.ganime.networks.tokens import frame_positions
from animegen.tasks.protocols import Sampling

CODES = 11


def network(merge: int = 2, **settings: Any) -> CodeTransformer:
    torch.manual_seed(0)
    size: dict[str, Any] = {"codes": CODES, "grid": (4, 6), "max_frames": 6, "layers": 2, "heads": 2, "dim": 24}
    made = CodeTransformer(**size | {"decoding": "clip_mask", "merge": merge} | settings)
    for parameter in made.parameters():  # as after training
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def clips(batch: int = 2, frames: int = 5, height: int = 4, width: int = 6) -> Tensor:
    return torch.randint(CODES, (batch, frames, height, width), generator=torch.Generator().manual_seed(1))


def test_squares_are_gathered_in_raster_order_and_scattered_back() -> None:
    positions = torch.cat([torch.zeros(1, 3).long(), frame_positions([0, 3], 2, 4, torch.device("cpu"))])
    squares = Squares.of(positions, 2)
    assert squares == (1, 2, 4, 2)
    tokens = torch.arange(16.0).view(1, 16, 1)
    gathered = squares.gathered(tokens)
    assert gathered[..., 0].tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    assert torch.equal(squares.scattered(gathered), tokens)
    # The single token, and the first code of each square.
    assert squares.kept(17, tokens.device).tolist() == [0, 1, 3, 9, 11]
    with pytest.raises(AnimegenError, match="2x4 codes cannot be divided into squares of 3x3"):
        Squares.of(positions, 3)


def test_the_vectors_of_a_square_are_projected_together_and_apart() -> None:
    merging, squares = TokenMerging(2, 2), Squares(1, 2, 2, 2)
    vectors = torch.randn(1, 5, 2)
    merged = merging.merged(vectors, squares)
    torch.testing.assert_close(merged[:, :1], vectors[:, :1])
    torch.testing.assert_close(merged[:, 1], merging.merge(vectors[:, 1:].flatten(1)))
    hidden = torch.randn(1, 2, 2)
    whole = merging.whole(hidden, vectors, squares)
    parts = merging.split(hidden[:, 1]).view(1, 4, 2)
    torch.testing.assert_close(whole, merging.norm(vectors + torch.cat([hidden[:, :1], parts], 1)))
    mask = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    assert merged_mask(mask, torch.tensor([0, 2])).tolist() == [[True, False], [True, True]]  # type: ignore[union-attr]
    assert merged_mask(None, torch.tensor([0])) is None


def test_parameters_are_those_of_the_blocks_and_of_two_projections() -> None:
    plain, merged = (sum(p.numel() for p in network(merge).parameters()) for merge in (1, 2))
    assert merged - plain == (4 * 24 * 24 + 24) + (4 * 24 * 24 + 4 * 24) + 2 * 24


def test_the_blocks_process_a_quarter_of_the_tokens() -> None:
    made, lengths = network(), []
    made.backbone.register_forward_hook(lambda _, inputs, output: lengths.append(inputs[0].shape[1]))
    found = made(clips())
    assert lengths == [1 + 5 * 24 // 4]
    assert found["logits"].shape == (len(found["targets"]), CODES)
    assert len(found["targets"].unique()) > 1


def test_each_code_of_a_square_is_read_and_predicted_on_its_own() -> None:
    made = network(train_frames=1)
    codes = clips(1, 3)
    pass_ = made.expect(codes[:, 0], codes[:, -1], 3)[0]
    # Within a square predictions differ, since positions do.
    assert not torch.allclose(pass_[0, 0, 0, 0], pass_[0, 0, 1, 1], atol=1e-3)
    other = codes.clone()
    other[0, 0, 1, 1] = (other[0, 0, 1, 1] + 1) % CODES
    changed = made.expect(other[:, 0], other[:, -1], 3)[0]
    assert not torch.allclose(pass_, changed, atol=1e-3)


@pytest.mark.parametrize("position", ["learned", "rope3d"])
def test_codes_from_the_cache_are_those_of_one_whole_pass(position: str) -> None:
    made, codes = network(position=position), clips()
    probabilities, _ = made.expect(codes[:, 0], codes[:, -1], 5)
    drawn = made.generate(codes[:, 0], codes[:, -1], 5, Sampling(greedy=True, steps=1))
    assert torch.equal(drawn[:, 1:-1], probabilities.argmax(-1))
    assert torch.equal(drawn[:, 0], codes[:, 0])
    smaller = made.generate(codes[:, 0, :2, :4], codes[:, -1, :2, :4], 4, Sampling(steps=3))
    assert smaller.shape == (2, 4, 2, 4)


def test_a_gradient_reaches_both_projections() -> None:
    made = network().train()
    found = made(clips())
    torch.nn.functional.cross_entropy(found["logits"], found["targets"]).backward()
    assert made.merging is not None
    assert all(float(p.grad.abs().sum()) > 0 for p in made.merging.parameters() if p.grad is not None)
    assert made.merging.split.weight.grad is not None


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AnimegenError, match="needs decoding=clip_mask"):
        network(decoding="prefix_ar")
    with pytest.raises(AnimegenError, match="must be at least 1"):
        network(0)
    with pytest.raises(AnimegenError, match="4x6 codes cannot be divided into squares of 4x4"):
        network(4)
    codes = clips(1, 3, 3, 4)
    with pytest.raises(AnimegenError, match="3x4 codes cannot be divided"):
        network().generate(codes[:, 0], codes[:, -1], 3)


def test_frames_are_padded_to_whole_squares() -> None:
    tokenizer = Tokenizer(8, [1, 2], 1, [], 16, {"dim": 4, "codes": CODES, "kmeans": False}, groups=4, patch=2)
    made = Ganime(tokenizer, network(grid=(4, 4)), frame_size=(16, 16), tokenizer_steps=1, objectives={})
    made.transformer_start = made.train_step = 1
    made.eval()
    assert made.size_divisor == 8  # codes of 4x4 pixels, two to a side
    first, last = torch.rand(2, 1, 3, 12, 10) * 2 - 1
    pair = made.encode_pair(first, last)
    assert pair.first.shape == (1, 4, 4)
    frame = made.synthesize(pair, torch.tensor([0.5]))
    assert frame.shape == (1, 3, 12, 10)
    assert bool(frame.isfinite().all())
