"""Training of the temporal model: who learns from what, when, and that nothing that was broken is broken again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.engine.checkpoint import read_checkpoint
from animegen.errors import AnimegenError
from animegen.models.temporal import TemporalAnime
from animegen.models.temporal.looks import check_looks
from animegen.models.temporal.windows import (
    Disturbance,
    TrainingStage,
    apply_stage,
    as_windows,
    estimated_flow,
    sorted_stages,
    stage_at,
)
from animegen.nn.colour import LinearColourTransfer
from tests.support import composed, train


def module(*words: str, experiment: str = "study") -> TemporalAnime:
    torch.manual_seed(0)
    given = [f"experiment=temporal/{experiment}", "size=tiny", "model.generator.width=0.125", "train_steps=10"]
    return build(composed(*given, *words)["model"], "model").train()


def batch(count: int = 2, length: int = 4, side: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def pictures(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    return {
        "photo": pictures(count, length, 3, side, side),
        "anime": pictures(count, length, 3, side, side),
        "style": pictures(count, 3, side, side),
        "flow": torch.zeros(count, length - 1, 2, side, side),
        "valid": torch.ones(count, length - 1, 1, side, side, dtype=torch.bool),
        "flow_first": torch.zeros(count, length - 1, 2, side, side),
        "valid_first": torch.ones(count, length - 1, 1, side, side, dtype=torch.bool),
    }


def step(model: TemporalAnime, given: dict[str, Tensor], at: int = 9) -> dict[str, dict[str, float]]:
    """Go backward through all updates at a step as the base does, and return the terms of each."""
    model.train_step = at
    networks = model.networks()
    found = {}
    for objective in model.objectives.values():
        objective.step = at
    for name, evaluation in model.updates(given):
        for other, network in networks.items():
            network.requires_grad_(other == model.trains.get(name, name))
        total, terms = evaluation.compute()
        total.backward()
        found[name] = {term: value.item() for term, value in terms.items()}
    for network in networks.values():
        network.requires_grad_(True)
    return found


def reached(network: nn.Module) -> dict[str, bool]:
    return {
        name: parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        for name, parameter in network.named_parameters()
    }


def test_gradients_reach_every_parameter_of_the_generator_and_no_discriminator() -> None:
    model = module("model.default_share=0.5", "model.stages.windows.samples=null")
    with torch.no_grad():  # what begins as nothing passes nothing on
        for name, parameter in model.generator.named_parameters():
            if name.endswith(("second.weight", "affine.weight", "mask.weight", "gain")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    torch.manual_seed(3)
    terms = step(model, batch(8))
    assert {"adversarial", "adversarial_clip", "content", "style", "temporal", "long", "features"} <= set(
        terms["generator"]
    )
    assert {"ping_pong", "identity", "tv", "colour", "restoration"} <= set(terms["generator"])
    missed = [name for name, found in reached(model.generator).items() if not found]
    assert not missed
    assert list(terms) == ["discriminator", "temporal_discriminator", "generator", "photo_discriminator", "refiner"]
    for name in ("discriminator", "temporal_discriminator"):
        model.zero_grad(set_to_none=True)
        model.train_step = 9
        for update, evaluation in model.updates(batch()):
            if update == name:
                evaluation.compute()[0].backward()
                break
        # (At the start the hinge loss pulls the last bias up and down alike.)
        assert all(found for part, found in reached(getattr(model, name)).items() if not part.endswith("bias"))
        assert not any(reached(model.generator).values())  # what is drawn is detached for the discriminators


def test_the_generator_is_moved_by_the_adversarial_terms() -> None:
    """Gradients left over from the discriminator's step cancelled it in the first implementation."""
    model = module()
    terms = [t for t in model.objectives["generator"].terms if not t.startswith("adversarial")]
    for term in terms:
        del model.objectives["generator"].terms[term]
    step(model, batch())
    norm = nn.utils.get_total_norm([p.grad for p in model.generator.parameters() if p.grad is not None])
    assert norm > 1e-4


def test_both_discriminators_see_anime_as_real() -> None:
    model, given = module("model.stages.windows.samples=null"), batch()
    seen: dict[str, Tensor] = {}
    for name in ("discriminator", "temporal_discriminator"):
        getattr(model, name).register_forward_pre_hook(lambda _, inputs, n=name: seen.setdefault(n, inputs[0]))
    step(model, given)
    frames, clips = seen["discriminator"], seen["temporal_discriminator"]
    assert torch.equal(frames[:8], given["anime"].flatten(0, 1))
    assert torch.equal(clips[:2], given["anime"])
    assert not any(torch.equal(clip, photo) for clip in clips for photo in given["photo"])
    assert clips.shape == (4, 4, 3, 32, 32)  # whole clips, drawn ones too


def test_photos_are_drawn_on_the_turns_of_their_terms_alone() -> None:
    model = module("train_steps=100", experiment="quickstart")
    given = {key: value[:, :1] for key, value in batch().items() if key in ("photo", "anime")}
    given["style"] = batch()["style"]
    seen: list[int] = []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    between = step(model, given, at=10)
    assert list(between) == ["generator"]
    assert set(between["generator"]) == {"restoration", "gradient", "steadiness"}
    turn = step(model, given, at=12)
    assert list(turn) == ["discriminator", "generator", "photo_discriminator", "refiner"]
    assert {"adversarial", "adversarial_restored", "colour", "tv", "temporal"} <= set(turn["generator"])
    assert seen == [2, 4]  # restored only; photos beside


def test_grain_differs_from_frame_to_frame_and_is_for_windows_alone() -> None:
    model = module("model.grain=0.1")
    clip = torch.zeros(64, 3, 3, 8, 8)
    noise = model._add_grain(clip)
    strengths = noise.flatten(1).std(1) / 2  # as a share of the range of 2
    assert strengths.max().item() < 0.11
    assert strengths.mean().item() == pytest.approx(0.05, rel=0.2)
    assert abs(torch.corrcoef(torch.stack([noise[:, 0].flatten(), noise[:, 1].flatten()]))[0, 1].item()) < 0.05
    assert torch.equal(model._add_grain(clip[:, :1]), clip[:, :1])
    assert torch.equal(module("model.grain=0.0")._add_grain(clip), clip)


def test_the_refiner_learns_from_photos_and_its_drawings_are_restored() -> None:
    model = module("model.grain=0.0", "model.stages.windows.samples=null")
    assert model.refiner is not None
    nn.init.constant_(model.refiner.network.last.bias, 0.3)
    seen: dict[str, Tensor] = {}
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.update({"joined": inputs[0], **seen}))
    model.refiner.register_forward_hook(lambda _, __, output: seen.update(refined=output))
    step(model, batch())
    assert torch.equal(seen["joined"][2:4].flatten(0, 1), seen["refined"])
    assert not seen["joined"].requires_grad  # it must not learn to make the generator's task easy
    assert reached(model.refiner)["network.last.weight"]
    with pytest.raises(AnimegenError, match=r"needs model\.photo_discriminator"):
        module("model.photo_discriminator=null", "model.objectives.photo_discriminator=null")


def test_features_are_frozen_and_not_in_the_model() -> None:
    """A style loss in features that learn is lowered by making them constant."""
    model = module()
    assert model.features is not None
    assert not list(model.features.parameters())
    assert not any(key.startswith("features") for key in model.state_dict())


def test_single_frames_need_neither_motion_nor_the_discriminator_of_clips() -> None:
    model = module()
    given = {key: value[:, :1] if key in ("photo", "anime") else value for key, value in batch().items()}
    terms = step(model, {key: given[key] for key in ("photo", "anime", "style")})
    assert "temporal_discriminator" not in terms
    assert terms["generator"]["temporal"] == terms["generator"]["long"] == terms["generator"]["features"] == 0
    assert terms["generator"]["ping_pong"] == 0
    pictures = {key: batch()[key][:, 0] for key in ("photo", "anime")}
    assert as_windows(pictures)["photo"].shape == (2, 1, 3, 32, 32)
    assert torch.equal(as_windows(pictures)["style"], pictures["anime"].roll(1, 0))
    with pytest.raises(AnimegenError, match="have no 'anime'"):
        as_windows({"photo": pictures["photo"]})


def test_terms_and_discriminators_begin_at_their_step() -> None:
    model = module("train_steps=100")
    assert list(step(model, batch(), at=0)) == ["generator", "photo_discriminator", "refiner"]
    assert "adversarial" not in step(model, batch(), at=0)["generator"]
    assert list(step(model, batch(), at=99))[:3] == ["discriminator", "temporal_discriminator", "generator"]


def test_ping_pong_is_nothing_without_a_memory_and_something_with_one() -> None:
    forgetful = module("ablation=temporal/frame_by_frame", "model.stages.windows.samples=null")
    assert step(forgetful, batch())["generator"]["ping_pong"] < 1e-5
    model = module("model.stages.windows.samples=null")
    with torch.no_grad():
        model.generator.memory.gamma.fill_(1.0)
    assert step(model, batch())["generator"]["ping_pong"] > 1e-4


def test_the_way_back_is_cut_where_the_way_there_was() -> None:
    model = module("model.tbptt=0").eval()
    given = batch(1)
    state = model.generator(given["photo"], flow=estimated_flow(given["photo"]))[1]
    reset = torch.tensor([[False, False, True, False]])  # frames 2 and 3 belong to another film
    drawn = model._ping_pong(given, given["photo"], state, reset)["back"]
    way_back = given["photo"][:, :2].flip(1)
    emptied = state.reset(torch.tensor([True]))
    fresh, _ = model.generator(way_back, None, emptied, flow=estimated_flow(way_back))
    assert torch.allclose(drawn[:2], fresh[0].flip(0), atol=1e-6)
    leaking = model._ping_pong(given, given["photo"], state, None)["back"]
    assert torch.equal(leaking[2], drawn[2])


def test_singular_values_are_cut_every_fifth_step() -> None:
    model = module("ablation=temporal/discriminator_svc")
    assert model.temporal_discriminator is not None
    weight = model.temporal_discriminator.parts[0][0].weight
    for at, cut in ((9, False), (10, True)):
        weight.data.normal_()
        step(model, batch(), at=at)
        assert bool(torch.linalg.matrix_norm(weight.detach().flatten(1), 2) <= 1 + 1e-4) is cut


def test_the_cycle_trains_the_way_back() -> None:
    model = module("ablation=temporal/cycle")
    terms = step(model, batch())
    expected = ["discriminator", "temporal_discriminator", "generator", "photo_discriminator", "refiner", "reverse"]
    assert list(terms) == expected
    assert {"refined", "unstyled"} <= set(terms["photo_discriminator"])
    assert terms["reverse"]["cycle"] == pytest.approx(terms["generator"]["cycle"], rel=1e-3)
    assert model.reverse is not None
    assert reached(model.reverse)["decoder.last.weight"]
    with pytest.raises(AnimegenError, match="does not accept a style"):
        model.reverse(batch()["photo"], batch()["style"])


@pytest.mark.parametrize(
    "ablation", ["smooth", "noise", "state_align_flow", "tbptt_1", "original_proposal", "style_gram"]
)
def test_options_train(ablation: str) -> None:
    terms = step(module(f"ablation=temporal/{ablation}"), batch())
    assert all(torch.tensor(list(values.values())).isfinite().all() for values in terms.values())
    assert ablation != "smooth" or "smooth" in terms["discriminator"]
    assert ablation != "noise" or terms["generator"]["noise"] > 0


def test_restoration_degrades_all_frames_of_a_clip_alike() -> None:
    clip = torch.rand(2, 1, 3, 8, 8).mul(2).sub(1).repeat_interleave(4, -1).repeat_interleave(4, -2)
    clip = clip.expand(-1, 3, -1, -1, -1)
    model = module("+model.degradation.ink=1", "+model.degradation.shading=0.0", "+model.degradation.grain=0.0")
    degraded = model._degrade(clip, model._colours({}))
    assert degraded.shape == clip.shape
    inner = degraded[..., 2:-2, :]  # rows at the borders are blurred with those of the next frame
    assert (inner - inner[:, :1]).abs().max() < 1e-5
    assert (degraded - clip).abs().mean() > 0.05
    grainy = module("+model.degradation.ink=1", "+model.degradation.shading=0.0")._degrade(clip, model._colours({}))
    assert (grainy - grainy[:, :1])[:, 1:, ..., 2:-2, :].std() == pytest.approx(2**0.5 * 0.04, rel=0.2)


def test_networks_and_objectives_must_belong_together() -> None:
    with pytest.raises(AnimegenError, match="has no temporal_discriminator but an objective"):
        module("model.temporal_discriminator=null")
    model = module()
    model.degradation = None
    with pytest.raises(AnimegenError, match=r"no model\.degradation"):
        step(model, batch())


# --- windows ---------------------------------------------------------------------------------------------------


def test_stages_cut_frames_samples_and_sides() -> None:
    stages = sorted_stages(
        {"late": TrainingStage(5, samples=1), "early": TrainingStage(1, frames=2, size=16), "off": None}
    )
    assert [stage.start for stage in stages] == [1, 5]
    given = batch()
    assert apply_stage(given, stage_at(stages, 0)) is given
    early = apply_stage(given, stage_at(stages, 4))
    assert torch.equal(early["photo"], given["photo"][:, :2, :, :16, :16])
    assert early["flow"].shape == (2, 1, 2, 16, 16)
    assert early["style"].shape == (2, 3, 32, 32)
    late = apply_stage(given, stage_at(stages, 100))
    assert late["photo"].shape == (1, 4, 3, 32, 32)
    single = apply_stage(given, TrainingStage(0, 1))
    assert single["photo"].shape[1] == 1
    assert "flow" not in single
    with pytest.raises(AnimegenError, match="at least 1"):
        TrainingStage(frames=0)
    with pytest.raises(AnimegenError, match=r"model\.stages\.a must be a stage"):
        sorted_stages({"a": {"start": 3}})  # type: ignore[dict-item]
    both = sorted_stages({"a": TrainingStage(frames=3), "b": TrainingStage(frames=2)})
    assert apply_stage(given, stage_at(both, 0))["photo"].shape[1] == 2  # the one named later counts


def test_a_stage_can_teach_a_part_of_the_generator_alone() -> None:
    model = module("model.stages.windows.start=5", "+model.stages.windows.only=memory")
    generator = model.generator
    assert all(parameter.requires_grad for parameter in generator.parameters())
    for at, learning in ((4, {"encoder", "memory", "decoder"}), (5, {"memory"}), (4, {"encoder", "memory", "decoder"})):
        model.train_step = at
        for objective in model.objectives.values():
            objective.step = at
        updates = [name for name, _ in model.updates(batch())]
        assert "generator" in updates
        found = {name.split(".")[0] for name, p in generator.named_parameters() if p.requires_grad}
        assert found & {"encoder", "memory", "decoder"} == learning
    with pytest.raises(AnimegenError, match=r"no part 'memori'.*Did you mean 'memory'"):
        module("+model.stages.windows.only=memori")


def test_what_a_stage_leaves_alone_stays_as_it_was(tmp_path: Path) -> None:
    words = [
        "experiment=temporal/quickstart",
        "model.stages.windows.start=1",
        "+model.stages.windows.only=memory",
        "evaluate=false",
    ]
    begun = train(*words, "train_steps=1", output=tmp_path / "run")
    before = read_checkpoint(begun)["state_dict"]
    before = {key: value.clone() for key, value in before.items() if key.startswith("generator.")}
    train(f"resume={begun}", "train_steps=3", output=tmp_path / "on")
    after = read_checkpoint(tmp_path / "on")["state_dict"]
    changed = {key.split(".")[1] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"memory"}


def test_splices_are_cuts_told_or_not_and_cold_starts_go_on() -> None:
    given = batch(3)
    for settings, told, spliced in (
        ({"splice": 1.0}, True, True),
        ({"silent_splice": 1.0}, False, True),
        ({"cold": 1.0}, True, False),
    ):
        torch.manual_seed(0)
        out, reset = Disturbance(**settings)(given)
        assert reset is not None
        assert reset.sum(1).tolist() == [int(told)] * 3
        for b in range(3):
            place = next(t for t in range(1, 4) if not out["valid"][b, t - 1].any())
            assert out["valid"][b].flatten(1).any(1).sum() == 2  # nothing is asked across that frame alone
            assert not out["valid_first"][b, place - 1 :].any()
            assert bool(reset[b, place]) is told
            source = given["photo"][(b - 1) % 3 if spliced else b]
            assert torch.equal(out["photo"][b, place:], source[place:])
            assert torch.equal(out["photo"][b, :place], given["photo"][b, :place])
    same, reset = Disturbance()(given)
    assert same is given
    assert reset is None
    with pytest.raises(AnimegenError, match="probabilities"):
        Disturbance(splice=0.8, cold=0.4)


def test_windows_that_stand_still_have_no_motion() -> None:
    given = batch(64, side=8)
    given["flow"] += 3
    given["valid"][:] = False
    torch.manual_seed(0)
    out, reset = Disturbance(still=0.5)(given)
    assert reset is None
    held = {key: (out[key] == given[key][:, :1]).flatten(1).all(1) for key in ("photo", "anime")}
    for key, still in held.items():
        assert 16 < still.sum() < 48
        assert torch.equal(out[key][~still], given[key][~still])
    assert not torch.equal(held["photo"], held["anime"])
    still = held["photo"]
    assert out["valid"][still].all()
    assert not out["valid"][~still].any()
    assert (out["flow"][still] == 0).all()
    assert (out["flow"][~still] == 3).all()
    single = {key: value[:, :1] for key, value in given.items() if key in ("photo", "anime")}
    assert Disturbance(still=1.0)(single)[0] is single


# --- application -----------------------------------------------------------------------------------------------


def applied(*words: str) -> TemporalAnime:
    model = module(*words).eval().requires_grad_(False)
    with torch.no_grad():
        model.generator.memory.gamma.fill_(1.0)
    return model


@pytest.mark.parametrize(("height", "width"), [(37, 53), (16, 16), (5, 40)])
def test_frames_of_any_size(height: int, width: int) -> None:
    model, state = applied(), None
    for _ in range(2):
        drawn, state = model.stylize(torch.rand(2, 3, height, width) * 2 - 1, state)
        assert drawn.shape == (2, 3, height, width)
        assert drawn.isfinite().all()
        assert drawn.abs().max() <= 1


def test_streaming_equals_the_windows_of_training() -> None:
    model, film = applied(), torch.rand(1, 6, 3, 32, 32) * 2 - 1
    windows = model.generator(film, flow=estimated_flow(film))[0].clamp(-1, 1)
    assert (model.stylize_clips(film) - windows).abs().max() < 1e-5


def test_another_size_starts_the_memory_anew_and_keeps_the_style() -> None:
    model = applied()
    with torch.no_grad():
        nn.init.normal_(model.generator.adain.affine.weight)
    style = model.encode_style([torch.rand(3, 64, 64)])
    small, large = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 48, 64)
    _, state = model.stylize(small, None, style)
    after, _ = model.stylize(large, state)
    assert torch.equal(after, model.stylize(large, None, style)[0])
    assert not torch.equal(after, model.stylize(large)[0])
    # A still without weights is the same as one of weight 1; two are shared by all streams.
    assert torch.equal(model.stylize(small, None, torch.rand(1, 3, 40, 40))[0].isfinite().all(), torch.tensor(True))
    assert model.stylize(small.expand(3, -1, -1, -1), None, style)[0].shape == (3, 3, 32, 32)


def test_a_memory_that_follows_the_picture_estimates_its_flow() -> None:
    model = applied("ablation=temporal/state_align_flow")
    still = torch.rand(1, 3, 64, 64) * 2 - 1
    _, state = model.stylize(still)
    assert state.previous is not None
    twice, _ = model.stylize(still.roll(3, -1), state)
    assert twice.isfinite().all()
    unmoved = applied("ablation=temporal/no_composition")
    assert unmoved.stylize(still)[1].previous is None


def test_each_look_has_its_colours_and_clips_are_drawn_after_their_still() -> None:
    model = module("model.looks=2", experiment="styles").eval()
    given = batch(4) | {"look": torch.tensor([0, 1, 0, 1])}
    shade = torch.tensor([-0.5, 0.5, -0.5, 0.5]).view(-1, 1, 1, 1, 1)
    given["anime"] = 0.1 * given["anime"] + shade
    colours = model._colours(given)
    colours.observe(given["photo"], given["anime"])
    mapped = colours(given["photo"].flatten(0, 1)).unflatten(0, (4, 4))
    alone = [LinearColourTransfer(), LinearColourTransfer()]
    for number, one in enumerate(alone):
        one.observe(given["photo"].flatten(0, 1), given["anime"][number::2].flatten(0, 1))
        for sample in (number, number + 2):
            assert torch.allclose(mapped[sample], one(given["photo"][sample]))
            assert mapped[sample].mean().item() == pytest.approx(number - 0.5, abs=0.02)
    back = colours.reverse(mapped[:, 0])
    assert torch.allclose(back[1], alone[1].reverse(mapped[1:2, 0])[0])
    # A look that no sample of a batch has keeps what is known of it.
    before = model.more_colours[0].matrix.clone()
    few = {name: value[:1] for name, value in given.items()}
    model._colours(few).observe(few["photo"], few["anime"])
    assert torch.allclose(model.more_colours[0].target_mean, alone[1].target_mean)
    assert before.isfinite().all()
    drawn = model.stylize_clips(given["photo"], given["style"])
    for number in range(2):
        style = model.encode_style([given["style"][number]])
        assert torch.allclose(
            drawn[number, 0], model.stylize(given["photo"][number : number + 1, 0], style=style)[0][0], atol=1e-5
        )
    assert list(model.preview(given))[:4] == ["photo", "output", "truth", "style"]
    assert model.validate(given)["psnr"].shape == (16,)


def test_model_and_data_have_the_same_looks() -> None:
    for shown, known in ((3, 3), (3, 1), (1, 3), (0, 2)):
        check_looks(SimpleNamespace(train=SimpleNamespace(looks=[None] * shown)), known)
    check_looks(None, 2)
    with pytest.raises(AnimegenError, match=r"The data have 3 looks and the model has 2: set model\.looks=3"):
        check_looks(SimpleNamespace(train=SimpleNamespace(looks=[None] * 3)), 2)


def test_previews_and_scores_of_clips() -> None:
    model, given = applied(), batch()
    shown = model.preview(given)
    assert list(shown) == ["photo", "output", "truth", "attention", "mask", "photo_clip", "output_clip", "truth_clip"]
    assert shown["output_clip"].shape == (2, 4, 3, 32, 32)
    scores = model.validate(given)
    assert scores["warp_excess"].shape == (2,)
    assert scores["psnr"].shape == (8,)
    del given["anime"]
    assert set(model.validate(given)) == {"warp_error"}
    assert set(model.validate({"photo": torch.rand(1, 3, 32, 32), "anime": torch.rand(1, 3, 32, 32)})) >= {"psnr"}


def test_bf16_is_finite() -> None:
    model = module()
    with torch.autocast("cpu", torch.bfloat16):
        terms = step(model, batch())
    assert all(torch.tensor(list(values.values())).isfinite().all() for values in terms.values())


def test_configurations_of_own_films_compose(tmp_path: Path) -> None:
    config: Any = compose_config("train", ["experiment=temporal/own_video", "data.videos=a", "data.anime=b"])
    assert config.data.train.photo.length == config.data.length
