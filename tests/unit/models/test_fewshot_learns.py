"""That few-shot training learns: from two drawn frames more than any recolouring of the photo could do."""

from __future__ import annotations

import torch

from animegen.benchmarks.keyframe_baselines import fit_lut
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.media.images import to_float
from animegen.metrics.image import psnr


def test_two_drawn_frames_beat_the_best_colour_table() -> None:
    words = [
        *("experiment=fewshot/quickstart", "data.frames=8", "data.size=64", "data.patch=24", "data.style=print"),
        *("data.batch_size=4", "model.generator.width=0.25", "model.generator.blocks=1"),
    ]
    config = plain(compose_config("train", words))
    torch.manual_seed(0)
    data, model = build(config["data"], "data"), build(config["model"], "model")
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=6e-3)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 6e-3 * min(1, 2 * (1 - step / 600))
        batch = data.finish_training({"sample": torch.arange(4) + 4 * step})
        for _, evaluation in model.updates(batch):
            optimizer.zero_grad()
            evaluation.compute()[0].backward()
            optimizer.step()
    project = data.project
    photo = torch.stack([project.photo[n] for n in range(len(project))])
    truth = to_float(torch.stack([project.answer(n) for n in project.scored]))
    held = to_float(photo[project.scored])
    table = fit_lut(photo, {n: project.drawings[n] for n in project.keys})
    model.eval()
    with torch.no_grad():
        drawn, _ = model.stylize(held)
    gain = (psnr(drawn, truth) - psnr(table(held), truth)).mean().item()
    assert gain > 1.2, f"{gain:.2f} dB over the best colour table"
