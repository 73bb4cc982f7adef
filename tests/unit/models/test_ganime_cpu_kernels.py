"""The CPU kernels return the same results as torch's public functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.ganime.networks import cpu_kernels
from animegen.models.ganime.networks.blocks import norm
from animegen.models.ganime.networks.cpu_kernels import attention, linear, prepacked, query_chunks


def parts(queries: int, keys: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value (B,3,S,8) as the transformer has them: views of one map."""
    torch.manual_seed(0)
    query, both = torch.randn(batch, queries, 3, 8), torch.randn(batch, keys, 2, 3, 8)
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    return query.transpose(1, 2), key, value


def by_definition(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = query.double() @ key.double().transpose(2, 3) / query.shape[-1] ** 0.5
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ value.double()


@pytest.mark.parametrize(
    ("queries", "dtype", "close"), [(1, torch.float32, 1e-6), (5, torch.float32, 1e-6), (5, torch.bfloat16, 2e-2)]
)
def test_attention_is_what_it_is_by_definition(queries: int, dtype: torch.dtype, close: float) -> None:
    query, key, value = parts(queries, 9)
    expected = by_definition(query, key, value)
    with torch.no_grad():
        found = attention(*(part.to(dtype) for part in (query, key, value)), None, 0.0)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected, atol=close)
    assert torch.allclose(attention(query, key, value, None, 0.0).double(), expected, atol=1e-6)  # with gradients


def test_chunks_know_what_all_and_what_any_of_their_queries_see(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = torch.tensor([0, 0, 0, 1, 2, 3])
    mask = levels.unsqueeze(1) >= levels
    monkeypatch.setattr(cpu_kernels, "_CHUNK", 3)
    assert query_chunks(mask) == [(0, 3, 3, 3), (3, 6, 4, 6)]
    mask[4, 0] = False  # a hole: nothing is shared from there on
    assert query_chunks(mask) == [(0, 3, 3, 3), (3, 6, 0, 6)]
    monkeypatch.setattr(cpu_kernels, "_CHUNK", 5)
    assert [chunk[:2] for chunk in query_chunks(mask)] == [(0, 6)]


@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_masked_attention_and_its_gradients_are_those_of_the_fused_kernel(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kernels, "_CHUNK", chunk)
    torch.manual_seed(1)
    mask = torch.rand(7, 7) < 0.5
    mask |= torch.eye(7, dtype=torch.bool)
    inputs = [part.double().requires_grad_() for part in parts(7, 7)]
    assert torch.autograd.gradcheck(lambda *three: cpu_kernels.MaskedAttention.apply(*three, mask), inputs)
    found = cpu_kernels.MaskedAttention.apply(*inputs, mask)
    assert torch.allclose(found, by_definition(*inputs, mask), atol=1e-12)
    # In bfloat16, as in training: nearer than its rounding, and the same way through `attention`.
    half = [part.detach().bfloat16().requires_grad_() for part in inputs]
    read = attention(*half, mask, 0.0)
    assert read.grad_fn is not None
    assert "MaskedAttention" in read.grad_fn.name()
    assert torch.allclose(read.double(), found, atol=3e-2)
    truth = torch.autograd.grad(found.sum(), inputs)
    for got, wanted in zip(torch.autograd.grad(read.sum(), half), truth, strict=True):
        assert torch.allclose(got.double(), wanted, atol=5e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_linear_layer_without_gradients_is_that_with_gradients(dtype: torch.dtype, gelu: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40).to(dtype), torch.randn(2, 5, 24, dtype=dtype)
    expected = layer(x)
    expected = F.gelu(expected, approximate="tanh") if gelu else expected
    close = 1e-6 if dtype == torch.float32 else 3e-2
    assert linear(layer, x, gelu).requires_grad
    assert torch.equal(linear(layer, x, gelu), expected)
    with torch.no_grad():
        plain = linear(layer, x, gelu)
        assert torch.allclose(plain, expected, atol=close)
        with prepacked(layer, 10):
            # In bfloat16 only on processors with the instructions for it.
            assert ("packed" in layer.__dict__) is (cpu_kernels._PACK is not None and dtype in cpu_kernels._DTYPES)
            assert torch.allclose(linear(layer, x, gelu), plain, atol=close)
            assert torch.allclose(linear(layer, x[:, :1], gelu), plain[:, :1], atol=close)  # another number of rows
        assert "packed" not in layer.__dict__
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(layer, x).dtype == torch.bfloat16


def test_without_onednn_torchs_own_functions_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Linear(24, 40), torch.randn(2, 5, 24)
    monkeypatch.setattr(cpu_kernels, "_ONEDNN", None)
    monkeypatch.setattr(cpu_kernels, "_PACK", None)
    with torch.no_grad(), prepacked(layer, 10):
        assert torch.equal(linear(layer, x), layer(x))
        query, key, value = parts(5, 9)
        assert torch.allclose(
            attention(query, key, value, None, 0.0).double(), by_definition(query, key, value), atol=1e-6
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_group_norm_goes_backward_as_torchs_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made = norm(8, groups=4).to(torch.float32)
    made.weight.data.uniform_(0.5, 2)
    gradient = torch.randn(2, 8, 6, 5)
    found = []
    for order in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(1)
        x = (torch.randn(2, 8, 6, 5) + 1).to(dtype).to(memory_format=order).requires_grad_()
        y = made(x)
        assert ("ContiguousBackward" in type(y.grad_fn).__name__) == (
            dtype == torch.bfloat16 and order == torch.channels_last
        )
        found.append([y, *torch.autograd.grad(y, (x, made.weight, made.bias), gradient.to(dtype))])
    # The other one's image gradient is in the other order of memory.
    assert found[0][1].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-5 if dtype == torch.float32 else 1e-2)
    frozen = (torch.randn(2, 8, 6, 5)).to(dtype).to(memory_format=torch.channels_last)
    to_weight = torch.autograd.grad(made(frozen).float().sum(), made.weight)[0]  # nothing for the map itself
    assert to_weight.shape == (8,)
