"""What an in-betweener and its films must be able to do: where each point is tested, and two of the tests."""

from __future__ import annotations

import ast
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
from tests.support import tiny
from tests.unit.models.test_interpolation_module import moving, term

TESTS = Path(__file__).parents[2]
NETWORKS, HERE = "unit/models/test_interpolation_networks.py", "unit/models/test_interpolation_acceptance.py"
QUANTIZER, LATENT, LINES = "unit/nn/test_quantizer.py", "unit/losses/test_latent_losses.py", "unit/nn/test_lines.py"
GRID, FILMS = "unit/inference/test_timegrid.py", "integration/test_interpolate.py"
VALUES = "integration/test_interpolate_values.py"

#: What is demanded, and the tests that see to it.
DEMANDS: list[tuple[str, dict[str, str]]] = [
    (
        "training begins with the blend; two equal frames give themselves",
        {"test_training_begins_with_the_blend_exactly": NETWORKS, "test_two_equal_frames_stay_what_they_are": HERE},
    ),
    ("a shift is overfitted to 35 dB in 300 steps", {"test_a_flow_network_overfits_a_shift": HERE}),
    ("backwards is forwards", {"test_symmetric_networks_do_not_mind_which_frame_is_first": NETWORKS}),
    (
        "warping moves exactly, splatting loses nothing, both have gradients",
        {
            "test_a_whole_shift_moves_an_impulse_exactly": "unit/nn/test_warp.py",
            "test_splatting_keeps_what_there_is_and_opening_removes_specks": NETWORKS,
            "test_gradients_reach_image_and_flow": "unit/nn/test_warp.py",
        },
    ),
    (
        "codebooks: moving averages, dead codes, several processes, fixed in evaluation",
        {
            "test_moving_averages_equal_their_definition_and_stay_in_eval": QUANTIZER,
            "test_codes_that_nobody_uses_are_replaced": QUANTIZER,
            "test_all_processes_have_the_same_codebook": "unit/nn/test_quantizer_processes.py",
        },
    ),
    (
        "free bits are a floor, schedules have their values",
        {
            "test_free_bits_are_a_floor_per_channel_without_gradient": LATENT,
            "test_cyclical_schedule": LATENT,
            "test_capacity_schedule": LATENT,
        },
    ),
    (
        "distances to lines are exact, Chamfer distances right",
        {
            "test_distance_equals_scipy_and_counts_the_diagonal_without_lines": LINES,
            "test_chamfer_by_hand": LINES,
        },
    ),
    (
        "the two definitions of SSIM, and the interpolation error",
        {
            "test_legacy_ssim_equals_its_definition_and_flatters": "unit/metrics/test_legacy.py",
            "test_interpolation_error_by_hand": "unit/metrics/test_legacy.py",
        },
    ),
    ("cuts are found, flashes are none", {"test_cuts_are_found_and_flashes_are_not": "unit/media/video/test_shots.py"}),
    (
        "rhythms of one to three frames; a slow pan is no held drawing",
        {
            "test_the_rhythm_of_a_drawn_scene_is_found": "unit/media/video/test_cadence.py",
            "test_a_slow_pan_is_no_held_drawing": "unit/media/video/test_cadence.py",
        },
    ),
    (
        "grids: two hours from 23.976 to 60, variable rates, 2.5",
        {
            "test_two_hours_at_23_976_become_60_frames_per_second_without_drift": GRID,
            "test_two_and_a_half_at_23_976_and_at_a_variable_rate": GRID,
            "test_grids_are_exact_in_the_file": VALUES,
            "test_a_variable_rate_through_a_file": VALUES,
        },
    ),
    (
        "a film's sound, length, tags, one colour, and ten bits",
        {
            "test_sound_subtitles_and_length_stay": FILMS,
            "test_a_constant_film_stays_constant": FILMS,
            "test_ten_bits_stay_and_what_is_copied_stays_to_the_bit": VALUES,
        },
    ),
    ("tiles give the frame of one piece", {"test_tiles_give_the_same_frame_as_one_piece": FILMS}),
    ("2,000 frames, a handful in memory", {"test_a_long_film_holds_few_frames_at_a_time": FILMS}),
    ("killed and gone on, the same frames", {"test_a_killed_run_goes_on_after_its_last_shot": FILMS}),
    (
        "every experiment and ablation trains two steps",
        {
            "test_every_experiment_trains_resumes_to_the_bit_and_stands_alone": "integration/test_configs.py",
            "test_every_ablation_trains": "integration/test_configs.py",
        },
    ),
    (
        "accumulated pieces are the whole batch",
        {"test_accumulated_chunks_equal_the_whole_batch": "unit/engine/test_module.py"},
    ),
    (
        "weights go on from size to size",
        {"test_a_run_through_all_stages_resumes_exactly": "unit/data/clips/test_curriculum.py"},
    ),
    (
        "every parameter is trained by exactly one optimizer",
        {"test_every_parameter_is_trained_by_exactly_one_optimizer": HERE},
    ),
]


def test_every_demand_has_its_tests() -> None:
    assert len(DEMANDS) == 19
    for what, tests in DEMANDS:
        for name, file in tests.items():
            defined = {n.name for n in ast.parse((TESTS / file).read_text()).body if isinstance(n, ast.FunctionDef)}
            assert name in defined, f"{what}: {file} has no {name}"


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
