"""One train step: who gets gradients, what accumulates, what is logged, what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from animegen.engine import AnimegenError, AnimeModule, Objective, Term
from animegen.engine.callbacks import LogEvery, StopAfter
from animegen.engine.environment import Environment
from animegen.engine.lightning import LightningAdapter


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x**2).mean()


class Adversaries(AnimeModule):
    """A generator and a critic of one number each, whose updates can be checked by hand."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.generator = nn.Linear(1, 1, bias=False)
        self.critic = nn.Linear(1, 1, bias=False)
        self.generator.weight.data.fill_(1.0)
        self.critic.weight.data.fill_(2.0)
        self.seen: list[dict[str, bool]] = []

    def updates(self, batch: dict[str, Tensor]) -> Iterator:
        fake = self.generator(batch["x"])

        def judged(images: Tensor) -> Tensor:
            self.seen.append({"g": self.generator.weight.requires_grad, "c": self.critic.weight.requires_grad})
            return self.critic(images)

        yield "critic", self.objectives["critic"](score=lambda: judged(fake.detach()))
        yield "generator", self.objectives["generator"](score=lambda: judged(fake))


def sgd(rate: float):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


def adversaries(critic: nn.Module | None = None, **settings) -> Adversaries:
    objectives = {
        "critic": Objective(loss=Term(critic or Mean(), reads={"x": "score"})),
        "generator": Objective(loss=Term(Mean(), reads={"x": "score"})),
    }
    return Adversaries(optimizers={"critic": sgd(0.5), "generator": sgd(0.1)}, objectives=objectives, **settings)


class Logger(pl.loggers.logger.DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append((step, dict(metrics)))


def fit(model: AnimeModule, batches: list[dict[str, Tensor]], log_every: int = 1) -> Logger:
    logger = Logger()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LogEvery(log_every), StopAfter(len(batches))],
    )
    trainer.fit(LightningAdapter(model), DataLoader(batches, batch_size=None))
    return logger


def test_updates_in_order_each_with_the_newest_weights() -> None:
    model = adversaries()
    fit(model, [{"x": torch.tensor([[3.0]])}])
    # critic: d(c*g*x)/dc = g*x = 3 -> 2 - .5*3 = .5; generator against the new critic: c*x = 1.5 -> 1 - .15
    assert model.critic.weight.item() == pytest.approx(0.5)
    assert model.generator.weight.item() == pytest.approx(0.85)


def test_only_the_trained_network_is_unfrozen_while_its_loss_is_computed() -> None:
    model = adversaries()
    fit(model, [{"x": torch.tensor([[3.0]])}])
    assert model.seen == [{"g": False, "c": True}, {"g": True, "c": False}]
    assert model.generator.weight.requires_grad
    assert model.critic.weight.requires_grad
    assert model.critic.weight.grad is None


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_accumulated_chunks_equal_the_whole_batch(accumulate: int) -> None:
    batches = [{"x": torch.randn(5, 1)} for _ in range(4)]
    whole, chunked = adversaries(), adversaries(accumulate=accumulate)
    rows_whole, rows_chunked = fit(whole, batches).rows, fit(chunked, batches).rows
    assert chunked.train_step == 4
    torch.testing.assert_close(chunked.generator.weight, whole.generator.weight)
    torch.testing.assert_close(chunked.critic.weight, whole.critic.weight)
    for (_, a), (_, b) in zip(rows_whole, rows_chunked, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_scalars_are_means_at_train_steps() -> None:
    model = adversaries()
    values = [1.0, 2.0, 3.0, 4.0]
    rows = fit(model, [{"x": torch.tensor([[v]])} for v in values], log_every=2).rows
    assert [step for step, _ in rows] == [2, 4]
    single = adversaries()
    each = fit(single, [{"x": torch.tensor([[v]])} for v in values], log_every=1).rows
    tag = "train/critic/loss"
    assert rows[0][1][tag] == pytest.approx((each[0][1][tag] + each[1][1][tag]) / 2)
    assert rows[0][1]["opt/lr/critic"] == 0.5


def test_clipping_limits_the_norm_of_the_gradient() -> None:
    model = adversaries(clip={"critic": 0.1})
    rows = fit(model, [{"x": torch.tensor([[3.0]])}]).rows
    assert rows[0][1]["train/critic/grad_norm"] == pytest.approx(3.0)
    assert model.critic.weight.item() == pytest.approx(2.0 - 0.5 * 0.1, abs=1e-5)


def test_schedules_step_with_their_optimizer() -> None:
    schedule = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # noqa: E731
    model = adversaries(schedulers={"generator": schedule})
    rows = fit(model, [{"x": torch.ones(1, 1)}] * 3).rows
    assert [row["opt/lr/generator"] for _, row in rows] == pytest.approx([0.05, 0.025, 0.0125])
    assert [row["opt/lr/critic"] for _, row in rows] == [0.5, 0.5, 0.5]


def test_ema_counts_train_steps_not_optimizer_steps() -> None:
    model = adversaries(ema={"networks": ["generator"], "decay": 0.9})
    fit(model, [{"x": torch.ones(1, 1)}] * 5)
    assert model.ema.updates == 5
    raw = model.generator.weight.item()
    with model.ema_scope():
        assert model.generator.weight.item() != raw
    assert model.generator.weight.item() == raw


def test_the_first_bad_term_is_named_before_it_spoils_the_weights() -> None:
    class Explodes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean() * (float("nan") if x.mean() < 0 else 1.0)

    model = adversaries(critic=Explodes())
    batches = [{"x": torch.tensor([[v]])} for v in (1.0, 1.0, -50.0, 1.0)]
    with pytest.raises(AnimegenError, match="term 'loss' of 'critic' became nan in train step 3"):
        fit(model, batches)
    assert torch.isfinite(model.critic.weight).all()


def test_unknown_update_is_explained() -> None:
    model = adversaries()
    model.settings.optimizers = {"critic": sgd(0.1)}
    with pytest.raises(AnimegenError, match=r"yields the update 'generator'.*model\.optimizers\.generator"):
        fit(model, [{"x": torch.ones(1, 1)}])


def test_unknown_network_is_explained() -> None:
    model = adversaries()
    model.settings.optimizers["generatr"] = sgd(0.1)
    with pytest.raises(AnimegenError, match=r"no network 'generatr'.*Did you mean 'generator'"):
        fit(model, [{"x": torch.ones(1, 1)}])


def test_unknown_objective_is_explained() -> None:
    model = adversaries()
    del model.objectives["critic"]
    with pytest.raises(
        AnimegenError, match=r"needs the objective 'critic'.*has generator: add model\.objectives\.critic"
    ):
        fit(model, [{"x": torch.ones(1, 1)}])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": {"critc": 1.0}}, r"model\.clip names 'critc'.*Did you mean 'critic'"),
        ({"schedulers": {"g": sgd(1)}}, r"model\.schedulers names 'g', which has no optimizer"),
        ({"ema": {"network": ["generator"]}}, r"model\.ema has the keys networks"),
        ({"ema": {"networks": ["generator"], "decay": 1.0}}, r"model\.ema\.decay must lie in"),
        ({"accumulate": 0}, r"model\.accumulate must be at least 1"),
        ({"compile": ["criti"]}, r"no network 'criti'.*Did you mean 'critic'"),
    ],
)
def test_wrong_settings_are_explained(settings: dict, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        fit(adversaries(**settings), [{"x": torch.ones(1, 1)}])


def test_wrong_settings_of_an_optimizer_are_explained() -> None:
    model = adversaries()
    model.settings.optimizers["critic"] = partial(torch.optim.SGD, lrr=1)
    with pytest.raises(AnimegenError, match=r"model\.optimizers\.critic: SGD has no setting 'lrr'\. Did you mean 'lr'"):
        fit(model, [{"x": torch.ones(1, 1)}])


def test_what_was_recorded_since_the_last_writing_is_written_at_the_end() -> None:
    rows = fit(adversaries(), [{"x": torch.ones(1, 1)}] * 5, log_every=2).rows
    assert [step for step, _ in rows] == [2, 4, 5]


def test_a_model_may_record_scalars_of_its_own() -> None:
    class Talks(Adversaries):
        def updates(self, batch: dict[str, Tensor]) -> Iterator:
            self.record("batch/mean", batch["x"].mean())
            yield from super().updates(batch)

    objectives = adversaries().objectives
    model = Talks(optimizers={"critic": sgd(0.1), "generator": sgd(0.1)}, objectives=objectives)
    rows = fit(model, [{"x": torch.full((1, 1), v)} for v in (1.0, 2.0)], log_every=2).rows
    assert rows[0][1]["train/batch/mean"] == 1.5


def test_where_asking_is_dear_the_guard_looks_later_but_names_the_step() -> None:
    model = adversaries()
    model.train_step = 10
    for loss in (1.0, 2.0, float("inf"), float("nan")):
        model.scalars.begin()
        model.scalars.add("train/critic/loss", torch.tensor(loss))
    adapter = LightningAdapter(model)
    with pytest.raises(AnimegenError, match="term 'loss' of 'critic' became inf in train step 9"):
        adapter.flush_log()
    with pytest.raises(AnimegenError, match="in train step 9"):
        adapter.check_finite()


def test_applied_restores_every_mode() -> None:
    model = adversaries()
    model.train()
    model.critic.eval()
    with model.applied():
        assert not model.generator.training
        assert torch.is_inference_mode_enabled()
    assert model.generator.training
    assert not model.critic.training


def test_state_dicts_of_the_adapter_are_those_of_the_model() -> None:
    model, other = adversaries(), adversaries()
    model.critic.weight.data.fill_(5.0)
    state = LightningAdapter(model).state_dict()
    assert state.keys() == model.state_dict().keys() >= {"generator.weight", "critic.weight"}
    LightningAdapter(other).load_state_dict(state)
    assert other.critic.weight.item() == 5.0


def test_hooks_of_a_model_are_called_in_order() -> None:
    called: list[object] = []

    class Hooked(Adversaries):
        def load_pretrained(self) -> None:
            called.append("load_pretrained")

        def start_training(self, environment: Environment) -> None:
            super().start_training(environment)
            called.append((environment.processes, environment.first, environment.data))

        def start_step(self) -> None:
            called.append(self.train_step)

    model = Hooked(optimizers={"critic": sgd(0.1), "generator": sgd(0.1)}, objectives=adversaries().objectives)
    fit(model, [{"x": torch.ones(1, 1)}] * 2)
    assert called == ["load_pretrained", (1, True, None), 0, 1]
