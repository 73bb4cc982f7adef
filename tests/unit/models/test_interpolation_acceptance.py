"""Interpolation networks before training, overfitted, and beside their optimizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.engine.objective import Objective
from animegen.losses import Charbonnier
from animegen.metrics.image import psnr
from animegen.models.interpolation import FrameInterpolation
from animegen.nn.inbetween import IFNet
from tests.support import tiny, train
from tests.unit.models.test_interpolation_module import moving, term


@pytest.mark.parametrize("model", ["unet", "isnet", "ifnet", "softsplat_lite", "hybrid_vae", "hybrid_vqvae"])
def test_two_equal_frames_stay_what_they_are(model: str) -> None:
    """Before any training, at any time between them: nothing moves and nothing fades."""
    torch.manual_seed(0)
    module = build(compose_config("train", [f"model=interpolation/{model}", "size=tiny"]).model, "model").eval()
    frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        encoded = module.encode_pair(frame, frame)
        for t in (0.25, 0.5):
            drawn = module.synthesize(encoded, torch.tensor([t]))
            assert psnr(drawn, frame).item() > 30, model


def test_a_flow_network_overfits_a_shift() -> None:
    """Less than 300 steps to 35 dB, where the blend has less than 25."""
    torch.manual_seed(0)
    network = IFNet((2, 1), (128, 96), depth=2, refine=(16, 32), width=0.25)
    loss = Objective(l1=term(Charbonnier(), image="fake", reference="truth"))
    module = FrameInterpolation(network, objectives={"generator": loss})
    data = moving()
    blend = torch.lerp(data["first"], data["last"], 0.5)
    assert psnr(blend, data["truth"][:, 0]).item() < 25
    optimizer = torch.optim.Adam(module.generator.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, 290)
    for _ in range(290):
        ((_, bound),) = list(module.updates(data))
        bound.compute()[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        assert psnr(module.predict(data)[:, 0], data["truth"][:, 0]).item() > 35


@pytest.mark.parametrize("experiment", ["interpolation/hybrid_vae", "interpolation/vqvae"])
def test_every_parameter_is_trained_by_exactly_one_optimizer(experiment: str) -> None:
    module = build(compose_config("train", tiny(f"experiment={experiment}")).model, "model")
    owners: dict[int, list[str]] = {}
    for name, make in module.settings.optimizers.items():
        network = module.network(module.trains.get(name, name))
        for group in make(list(network.parameters())).param_groups:
            for parameter in group["params"]:
                owners.setdefault(id(parameter), []).append(name)
    named = {
        f"{n}.{key}": p for n in ("generator", "discriminator") for key, p in getattr(module, n).named_parameters()
    }
    assert all(len(owners[id(parameter)]) == 1 for parameter in named.values())
    module.train_step = module.discriminator_start
    frames = torch.rand(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    times = torch.full((2, 1), 0.5)
    batch = {"first": frames[0], "last": frames[1], "truth": frames[2].unsqueeze(1), "t": times}
    for name, bound in module.updates(batch):
        if name == "discriminator":
            bound.compute()[0].backward()
            break
    judged: nn.Module = module.discriminator
    without = [key for key, p in judged.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_exact_motion_is_learned_from_toonworld(tmp_path: Path) -> None:
    run = train("experiment=interpolation/quickstart", "ablation=interpolation/exact_motion", output=tmp_path / "run")
    assert (run / "checkpoints" / "last.ckpt").is_file()
    config = compose_config("train", tiny("experiment=interpolation/quickstart", "ablation=interpolation/exact_motion"))
    module = build(config.model, "model")
    example = module.example_batch(1, 64, 64, torch.device("cpu"))
    ((_, bound),) = list(module.updates(example))  # as animegen bench does
    assert bound.compute()[0].isfinite()
