"""The quantiser: nearest codes, moving averages, dead codes, usage, against hand values."""

from __future__ import annotations

import logging

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.nn.quantizer import Quantizer, usage


def codebook(quantizer: Quantizer) -> torch.Tensor:
    return quantizer.inner.codebook  # type: ignore[union-attr, return-value]


def send_away(quantizer: Quantizer) -> None:
    """Put all codes but the first where no vector comes."""
    inner = quantizer.inner._codebook  # type: ignore[union-attr]
    with torch.no_grad():
        inner.embed[:, 1:] += 100
        inner.embed_avg.copy_(inner.embed)
        inner.cluster_size.fill_(1.0)


def test_usage_by_hand() -> None:
    even = usage(torch.tensor([[0, 1], [2, 3]]), 8)
    assert even.perplexity.item() == pytest.approx(4)
    assert even.used.item() == 0.5
    one = usage(torch.tensor([5, 5, 5]), 8)
    assert one.perplexity.item() == pytest.approx(1)
    assert one.used.item() == 0.125
    # Entropy of (3/4, 1/4): 0.5623 nats.
    assert usage(torch.tensor([0, 0, 0, 1]), 2).perplexity.item() == pytest.approx(1.7548, abs=1e-4)


def test_each_vector_becomes_the_nearest_code_and_gradients_pass() -> None:
    quantizer = Quantizer(2, codes=4, kmeans=False).eval()
    maps = torch.randn(2, 2, 3, 5, requires_grad=True)
    found = quantizer(maps)
    table = codebook(quantizer)
    gaps = (maps.permute(0, 2, 3, 1).unsqueeze(-2) - table).square().sum(-1)
    assert torch.equal(found.codes, gaps.argmin(-1))
    assert torch.allclose(found.values, table[found.codes].permute(0, 3, 1, 2), atol=1e-6)
    assert torch.allclose(quantizer.lookup(found.codes), found.values.detach(), atol=1e-6)
    quantizer.train()(maps).values.sum().backward()
    assert torch.equal(maps.grad, torch.ones_like(maps))


def test_moving_averages_equal_their_definition_and_stay_in_eval() -> None:
    quantizer = Quantizer(1, codes=2, decay=0.9, kmeans=False, reset=0.0)
    inner = quantizer.inner._codebook  # type: ignore[union-attr]
    with torch.no_grad():
        inner.embed.copy_(torch.tensor([[[0.0], [10.0]]]))
        inner.embed_avg.copy_(inner.embed)
        inner.cluster_size.fill_(1.0)
    maps = torch.tensor([1.0, 2.0, 9.0]).view(1, 1, 1, 3)
    quantizer.eval()(maps)
    assert torch.equal(codebook(quantizer).flatten(), torch.tensor([0.0, 10.0]))
    quantizer.train()(maps)
    # Counts 0.9 + 0.1 * (2, 1), sums 0.9 * (0, 10) + 0.1 * (3, 9).
    expected = torch.tensor([0.3 / 1.1, 9.9 / 1.0])
    assert torch.allclose(codebook(quantizer).flatten(), expected, atol=1e-3)


def test_codes_that_nobody_uses_are_replaced() -> None:
    torch.manual_seed(0)
    data = [torch.randn(4, 2, 4, 4) for _ in range(8)]
    used = {}
    for reset in (0.0, 1.0):
        torch.manual_seed(0)
        quantizer = Quantizer(2, codes=16, decay=0.5, kmeans=False, reset=reset)
        send_away(quantizer)
        for maps in data:
            found = quantizer(maps)
        used[reset] = quantizer.usage(found.codes).used.item()
    assert used[0.0] == 1 / 16
    assert used[1.0] > 0.7


def test_kmeans_finds_the_clusters_of_the_first_batch() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 5.0]])
    maps = (centres.repeat(30, 1) + 0.01 * torch.randn(60, 2)).T.reshape(1, 2, 6, 10)
    quantizer = Quantizer(2, codes=2, kmeans=True)
    found = quantizer(maps)
    assert quantizer.usage(found.codes).used == 1
    assert (found.values.detach() - maps).abs().max() < 0.1


def test_residual_levels_come_nearer() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 8, 8)
    gaps = []
    for levels in (1, 3):
        torch.manual_seed(0)
        quantizer = Quantizer(4, codes=16, residual=levels)
        found = quantizer(maps)
        gaps.append((found.values.detach() - maps).square().mean().item())
        assert found.codes.shape == ((2, 8, 8) if levels == 1 else (2, 8, 8, 3))
        assert torch.allclose(quantizer.eval().lookup(quantizer(maps).codes), quantizer(maps).values, atol=1e-5)
    assert gaps[1] < 0.5 * gaps[0]


def test_finite_scalar_quantisation_has_the_product_of_its_levels() -> None:
    quantizer = Quantizer(8, levels=[5, 5, 8])
    assert quantizer.codes == 200
    found = quantizer(torch.randn(2, 8, 4, 4))
    assert int(found.codes.max()) < 200
    assert torch.allclose(quantizer.lookup(found.codes), found.values, atol=1e-5)


def test_cosine_and_rotation_give_vectors_and_gradients() -> None:
    for settings in ({"cosine": True}, {"rotation": True}):
        quantizer = Quantizer(4, codes=8, kmeans=False, **settings)
        maps = torch.randn(1, 4, 3, 3, requires_grad=True)
        found = quantizer(maps)
        assert torch.allclose(found.values, quantizer.eval().lookup(found.codes), atol=1.0)
        found.values.square().sum().backward()
        assert maps.grad.abs().sum() > 0


def test_a_learned_codebook_gets_gradients() -> None:
    quantizer = Quantizer(2, codes=4, ema=False, kmeans=False, reset=0.0)
    found = quantizer(torch.randn(1, 2, 4, 4))
    found.nearest.sum().backward()
    assert sum(p.grad.abs().sum() for p in quantizer.parameters() if p.grad is not None) > 0


def test_a_collapsed_codebook_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    quantizer = Quantizer(2, codes=64, kmeans=False, reset=0.0, alarm=2)
    send_away(quantizer)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            quantizer(torch.randn(4, 2, 8, 8) * 0.01)
    assert [r.message for r in caplog.records if "collapsed" in r.message] == [
        "The codebook has collapsed: the perplexity of its 64 codes is 1.0 after 2 batches. Try a smaller"
        " learning rate, cosine=true, kmeans=true, a larger reset, or a larger batch."
    ]


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="codes >= 2"):
        Quantizer(4, codes=1)
    with pytest.raises(AnimegenError, match="no residual levels"):
        Quantizer(4, levels=[5, 5], residual=2)
    for levels in ([], [1, 8], [1024, 1024]):
        with pytest.raises(AnimegenError, match="levels of 2 or more, at most 65536 codes"):
            Quantizer(4, levels=levels)
