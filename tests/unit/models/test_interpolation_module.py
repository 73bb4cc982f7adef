"""The training module: updates, context entries, application to frames of any size; and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.losses import L1, Charbonnier, GANLoss
from animegen.models.interpolation import FrameInterpolation
from animegen.models.interpolation.discriminator import InterpolationDiscriminator
from animegen.models.interpolation.networks import IFNet, LatentInterpolator, UNetInterpolator
from animegen.nn.discriminators import PatchGAN, SNResNetPatch
from animegen.nn.inbetween import InbetweenNetwork, InbetweenOutput
from animegen.tasks.protocols import Interpolator


def term(loss: nn.Module, **reads: str) -> dict[str, Any]:
    return {"weight": 1.0, "loss": loss, "reads": reads}


def batch(count: int = 1, size: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def frames(*shape: int) -> Tensor:
        return torch.rand(2, *shape, 3, size, size, generator=generator) * 2 - 1

    t = torch.arange(1, count + 1) / (count + 1)
    return {"first": frames(), "last": frames(), "truth": frames(count), "t": t.expand(2, count)}


def test_the_flow_can_learn_from_the_exact_one() -> None:
    objective = Objective(flow=term(L1(), image="weighted_flow", reference="weighted_true_flow"))
    module = FrameInterpolation(IFNet((1,), (8,), depth=1, refine=()), objectives={"generator": objective})
    data = batch(2)
    with pytest.raises(AnimegenError, match=r"no exact flow: set data.exact_motion=true"):
        next(iter(module.updates(data)))[1].compute()
    data["exact_between"] = torch.arange(1.0, 17).view(2, 2, 4, 1, 1).expand(2, 2, 4, 32, 32)
    data["exact_sight"] = torch.ones(2, 2, 2, 32, 32, dtype=torch.bool)
    data["exact_sight"][0, 1, 0] = False  # in one sample, the first frame hides what the last frame between shows
    ((name, bound),) = list(module.updates(data))
    # Ordered by time first, like the output. A hidden place counts a fifth: 5 and 6 as 1 and 1.2.
    rows = [[1, 2, 3, 4], [9, 10, 11, 12], [1, 1.2, 7, 8], [13, 14, 15, 16]]
    assert torch.allclose(bound.entries["weighted_true_flow"]()[..., 0, 0], torch.tensor(rows))
    # An untrained network finds no motion.
    assert name == "generator"
    assert bound.compute()[0].item() == pytest.approx(sum(map(sum, rows)) / 16)


def test_a_network_without_flow_cannot_learn_one() -> None:
    objective = Objective(flow=term(L1(), image="weighted_flow", reference="weighted_true_flow"))
    module = FrameInterpolation(UNetInterpolator((8,)), objectives={"generator": objective})
    exact = {"exact_between": torch.zeros(2, 1, 4, 32, 32), "exact_sight": torch.ones(2, 1, 2, 32, 32).bool()}
    with pytest.raises(AnimegenError, match="the network predicts no flow: use ifnet"):
        next(iter(module.updates(batch() | exact)))[1].compute()


class Echo(InbetweenNetwork):
    """Draws an image of its time, and counts how often it encodes."""

    size_divisor = 8

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0
        self.gain = nn.Parameter(torch.ones(()))

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        self.encoded += 1
        return super().encode_pair(first, last)

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        image = self.gain * t.view(-1, 1, 1, 1).expand_as(state["first"])
        return InbetweenOutput(image, {"time": t, "pair": state["first"]})


def test_several_frames_between_are_drawn_from_one_encoding_in_the_order_of_the_truth() -> None:
    network = Echo()
    objective = Objective(l1=term(L1(), image="fake", reference="truth"))
    module = FrameInterpolation(network, objectives={"generator": objective})
    data = batch(3)
    ((name, bound),) = list(module.updates(data))
    assert (name, network.encoded) == ("generator", 1)
    entries = bound.entries
    assert entries["fake"][:, 0, 0, 0].tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert torch.equal(entries["truth"][2], data["truth"][0, 1])
    assert torch.equal(entries["first"][4], data["first"][0])
    assert entries["t"].tolist() == entries["time"].tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert entries["pair"] is data["first"]
    expected = (entries["fake"] - entries["truth"]).abs().mean()
    assert bound.compute()[0].item() == pytest.approx(expected.item())


def test_frames_of_any_size_at_any_times() -> None:
    module = FrameInterpolation(Echo())
    assert isinstance(module, Interpolator)
    first = torch.zeros(1, 3, 37, 5)
    out = module.between(first, first, torch.tensor([[0.25, 0.75]]))
    assert out.shape == (1, 2, 3, 37, 5)
    assert out[0, :, 0, 0, 0].tolist() == [0.25, 0.75]
    shown = module.preview(batch(3))
    assert {name: tuple(clip.shape) for name, clip in shown.items()} == dict.fromkeys(
        ("output", "truth"), (2, 5, 3, 32, 32)
    )
    assert list(module.preview(batch(1))) == ["first", "blend", "output", "truth", "last"]
    assert set(module.validate(batch(1))) == {"psnr", "gain_over_blend", "ssim", "edge_f"}


def test_each_kind_of_discriminator_input() -> None:
    class Shown(nn.Module):
        def __init__(self, condition: int = 0) -> None:
            super().__init__()
            self.condition = condition

        def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
            return x if condition is None else torch.cat([x, condition], 1)

    frame, first, last, t = (
        torch.full((1, 3, 4, 4), 0.5),
        torch.zeros(1, 3, 4, 4),
        torch.ones(1, 3, 4, 4),
        torch.tensor([0.3]),
    )
    assert torch.equal(InterpolationDiscriminator(Shown())(frame, first, last, t), frame)
    pair = InterpolationDiscriminator(Shown(7), "pair")(frame, first, last, t)[0, :, 0, 0]
    assert pair.tolist() == pytest.approx([0.5] * 3 + [0.0] * 3 + [1.0] * 3 + [0.3])
    motion = InterpolationDiscriminator(Shown(), "motion")(frame, first, last, t)[:, 0, 0, 0]
    assert motion.tolist() == [0.25, 0.25]
    large = [torch.zeros(1, 3, 32, 32)] * 3
    assert InterpolationDiscriminator(SNResNetPatch(condition=7, width=0.125), "pair")(*large, t).shape == (1, 1, 2, 2)
    with pytest.raises(AnimegenError, match="condition=7"):
        InterpolationDiscriminator(PatchGAN(width=0.125), "pair")
    with pytest.raises(AnimegenError, match="Did you mean 'frame'"):
        InterpolationDiscriminator(PatchGAN(width=0.125), "frames")


def test_the_adversary_starts_late_and_the_autoencoder_draws_only_what_is_read() -> None:
    network = LatentInterpolator((64, 128), latent=4, width=0.125)
    objectives = {
        "generator": Objective(
            rec=term(L1(), image="reconstruction", reference="truth"),
            latent=term(L1(), image="latent", reference="latent_truth"),
        ),
        "discriminator": Objective(real=term(GANLoss("hinge"), logits="real_logits")),
    }
    module = FrameInterpolation(network, InterpolationDiscriminator(PatchGAN(width=0.125)), 5, objectives=objectives)
    assert [name for name, _ in module.updates(batch())] == ["generator"]
    module.train_step = 5
    steps = list(module.updates(batch()))
    assert [name for name, _ in steps] == ["discriminator", "generator"]
    total, terms = steps[1][1].compute()
    assert set(terms) == {"rec", "latent"}
    assert total.isfinite()
    # The truth's latent is a constant: the term pulls the fused one towards it.
    assert not steps[1][1].entries["latent_truth"]().requires_grad
    # The fusion is what it teaches: an encoder that chases its own truth scales its latents up without end.
    steps[1][1].entries["latent"].sum().backward()
    assert network.fusion.last.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.encoder.parameters())


def test_invalid_values_are_reported() -> None:
    objective = Objective(real=term(GANLoss(), logits="real_logits"))
    with pytest.raises(AnimegenError, match="no discriminator but an objective"):
        FrameInterpolation(Echo(), objectives={"discriminator": objective})
    sync = Objective(sync=term(L1(), image="fake", reference="truth_stages"))
    ((_, bound),) = list(FrameInterpolation(Echo(), objectives={"generator": sync}).updates(batch()))
    with pytest.raises(AnimegenError, match=r"set model\.truth_encoder"):
        bound.compute()


def moving(size: int = 32, shift: int = 4) -> dict[str, Tensor]:
    """Return a smooth texture that moves to the right, its blend being a poor guess."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    texture = nn.functional.interpolate(coarse, (size, 2 * size), mode="bicubic").clamp(-1, 1)
    first, middle, last = (texture[..., 16 - n * shift : 16 - n * shift + size] for n in (0, 1, 2))
    return {"first": first, "last": last, "truth": middle.unsqueeze(1), "t": torch.tensor([[0.5]])}


@pytest.mark.parametrize(
    ("network", "gain"),
    [
        (lambda: IFNet((2, 1), (128, 96), depth=2, refine=(), width=0.25), 4),
        (lambda: UNetInterpolator((64, 128, 256), width=0.125, blocks=1), 4),
    ],
    ids=["ifnet", "unet"],
)
def test_networks_learn_a_translation(network, gain: float) -> None:
    torch.manual_seed(0)
    module = FrameInterpolation(
        network(), objectives={"generator": Objective(l1=term(Charbonnier(), image="fake", reference="truth"))}
    )
    data = moving()
    optimizer = torch.optim.Adam(module.generator.parameters(), lr=3e-3)
    for _ in range(60):
        ((_, bound),) = list(module.updates(data))
        bound.compute()[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert module.validate(data)["gain_over_blend"].item() > gain
