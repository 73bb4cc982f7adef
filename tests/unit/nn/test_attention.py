import pytest
import torch

from animegen.nn.attention import ExternalAttention, SelfAttention
from animegen.tiling.tiles import tiled


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_self_attention_begins_as_the_identity():
    layer = SelfAttention(16)
    x = torch.randn(2, 16, 6, 4)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gain.grad.abs() > 0


def test_self_attention_equals_loops_over_places():
    layer = SelfAttention(16).double()
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        layer.gain.fill_(0.7)
        q, k, v, out = (c.weight[:, :, 0, 0] for c in (layer.query, layer.key, layer.value, layer.project))
        expected = x.clone()
        for b in range(2):
            blocks = [(i, j) for i in range(0, 4, 2) for j in range(0, 6, 2)]
            pooled = [x[b, :, i : i + 2, j : j + 2].flatten(1) for i, j in blocks]
            keys = torch.stack([(k @ p).amax(1) for p in pooled])
            values = torch.stack([(v @ p).amax(1) for p in pooled])
            for i in range(4):
                for j in range(6):
                    shares = torch.softmax(keys @ (q @ x[b, :, i, j]), 0)
                    expected[b, :, i, j] += 0.7 * out @ (shares @ values)
        torch.testing.assert_close(layer(x), expected)


def test_large_maps_are_read_in_squares():
    torch.manual_seed(0)
    whole, layer = SelfAttention(16), SelfAttention(16, window=4)
    with torch.no_grad():
        whole.gain.fill_(0.7)
    layer.load_state_dict(whole.state_dict())
    small, large = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(layer(small), whole(small))
        for top in (0, 4, 8):
            for left in (0, 4):
                square = large[..., top : top + 4, left : left + 4]
                torch.testing.assert_close(layer(large)[..., top : top + 4, left : left + 4], whole(square))
        # What does not fill the last squares is continued by its border, and cut off again.
        odd = large[..., :10, :7]
        longer = torch.nn.functional.pad(odd, (0, 1, 0, 2), mode="replicate")
        torch.testing.assert_close(layer(odd), layer(longer)[..., :10, :7])


def test_external_attention_has_the_published_parameters():
    assert parameters(ExternalAttention(128)) == 3 * 128 * 128 + 2 * 128


def test_external_attention_equals_softmax_over_places_and_shares_over_entries():
    layer = ExternalAttention(8, slots=5).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.nn.init.normal_(layer.norm.weight)
        before, memory, after = (c.weight[:, :, 0, 0] for c in (layer.before, layer.memory, layer.after))
        places = before @ x.flatten(2)  # (B,C,N)
        shares = torch.softmax((memory @ places), dim=2)
        shares = shares / (1e-9 / 12 + shares.sum(1, keepdim=True))
        rebuilt = (after @ (memory.T @ shares)).view_as(x)
        mean, variance = rebuilt.mean((2, 3), keepdim=True), rebuilt.var((2, 3), correction=0, keepdim=True)
        normed = (rebuilt - mean) / (variance + 1e-5).sqrt() * layer.norm.weight[:, None, None]
        expected = torch.nn.functional.leaky_relu(normed + layer.norm.bias[:, None, None] + x, 0.2)
        torch.testing.assert_close(layer(x), expected)


def test_external_attention_survives_huge_activations():
    layer = ExternalAttention(8)
    x = (1e4 * torch.randn(1, 8, 6, 6)).requires_grad_()
    out = layer(x)
    out.square().mean().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shares_are_full_precision_under_autocast(dtype):
    layer = ExternalAttention(8)
    with torch.autocast("cpu", dtype):
        shares = layer._shares(torch.randn(1, 8, 4, 4).to(dtype))
    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 4, 4))


def test_external_attention_in_tiles():
    layer = ExternalAttention(8).eval()
    x = torch.randn(1, 8, 40, 72, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, 72)
    with torch.no_grad():
        whole = layer(x)
        parts = torch.cat([layer(part) for part in x.split(36, -1)], -1)
    torch.testing.assert_close(tiled(layer, x, 32), whole, atol=1e-5, rtol=1e-4)
    assert (parts - whole).abs().max() > 0.1
