"""What TensorBoard shows besides curves."""

from __future__ import annotations

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from animegen.engine.callbacks import TensorBoardLogger
from animegen.engine.callbacks.dashboard import charts, final_scores, hyperparameters

TAGS = [
    *("val/psnr", "val/ssim", "val/lpips_alex(random)", "train/generator/total", "train/generator/l1"),
    *("train/generator/l1_relative_grad_norm", "train/generator/grad_norm", "train/discriminator/real"),
    *("opt/lr/generator", "perf/steps_per_s", "eval/psnr"),
]


def test_a_chart_per_metric_and_the_terms_by_network() -> None:
    layout = charts(TAGS)
    assert list(layout) == ["validation", "train: discriminator", "train: generator", "optimizers"]
    shown = {
        (category, title): [tag for tag in TAGS if any(re.match(pattern, tag) for pattern in patterns)]
        for category, titles in layout.items()
        for title, (_, patterns) in titles.items()
    }
    assert shown[("validation", "psnr")] == ["val/psnr"]
    assert shown[("validation", "lpips_alex(random)")] == ["val/lpips_alex(random)"]
    assert shown[("train: generator", "total")] == ["train/generator/total"]
    assert shown[("train: generator", "terms")] == ["train/generator/l1"]
    assert shown[("train: generator", "gradient norms")] == [
        *("train/generator/l1_relative_grad_norm", "train/generator/grad_norm"),
    ]
    assert shown[("train: discriminator", "terms")] == ["train/discriminator/real"]
    assert shown[("optimizers", "learning rates")] == ["opt/lr/generator"]


def test_the_layout_follows_the_scalars_of_a_run(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_metrics({"train/generator/total": 1.0}, step=1)
    logger.log_metrics({"train/generator/total": 0.5}, step=2)
    logger.log_metrics({"val/psnr": 20.0}, step=2)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    found = [
        layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
        for event in events.Tensors("custom_scalars__config__")
    ]
    assert [[category.title for category in layout.category] for layout in found] == [
        ["train: generator"],
        ["validation", "train: generator"],
    ]


def test_hyperparameters_are_choices_and_overrides_of_the_model() -> None:
    record = {
        "config": {"seed": 1, "train_steps": 9, "ablations": {"no_style": True, "plain_norm": False}},
        "choices": {"experiment": "toy/quickstart", "model": "toy"},
        "overrides": [
            *("experiment=toy/quickstart", "output='a b'", "threads=1", "ablation=toy/no_style", "train_steps=9"),
            *("model.optimizers.generator.lr=0.002", "+model.ema=true", "data.style='dusk'", "~model.ema", "-m"),
            *("val_every=3", "callbacks.previews.every=5", "hydra/launcher=joblib"),
        ],
    }
    assert hyperparameters(record) == {
        **{"experiment": "toy/quickstart", "model": "toy", "ablations": "no_style", "seed": 1, "train_steps": 9},
        **{"model.optimizers.generator.lr": 0.002, "model.ema": True, "data.style": "dusk", "~model.ema": True},
    }


def test_final_scores_are_the_main_ones_of_the_model_that_are_finite() -> None:
    values = {"psnr": 12.5, "ssim": None, "flatness": 0.1, "edge_f": 0.5, "a": 1.0, "b": 2.0, "c": 3.0, "kid": 0.25}
    methods = {"identity": {"psnr": {"mean": 1.0}}, "model": {name: {"mean": mean} for name, mean in values.items()}}
    metrics = {name: {"better": "none" if name == "flatness" else "higher"} for name in values}
    expected = {"eval/kid": 0.25, "eval/psnr": 12.5, "eval/edge_f": 0.5, "eval/a": 1.0}
    assert final_scores({"evaluation": {"methods": methods, "metrics": metrics, "main": "kid"}}) == expected
    assert final_scores({"evaluation": None}) == final_scores({}) == {}
