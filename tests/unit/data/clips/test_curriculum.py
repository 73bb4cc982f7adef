"""Stages: which step and which sample belongs to which, what size it has, and that a run resumes exactly."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from animegen.data.clips import ToonWorldFrames
from animegen.data.clips.curriculum import Curriculum, CurriculumAugment, CurriculumBatchSampler, CurriculumView
from animegen.errors import AnimegenError
from tests.support import assert_same_state, train

STAGES = [
    {"size": 16, "batch_size": 4, "steps": 2},
    {"size": [8, 32], "batch_size": 3, "steps": 1, "accumulate": 3},
    {"size": 32, "batch_size": 2, "steps": None, "accumulate": 2},
]


def test_steps_and_samples_have_the_same_stage() -> None:
    plan = Curriculum(STAGES)
    assert [plan.at_step(step) for step in range(5)] == [0, 0, 1, 2, 2]
    assert [plan.first_sample(step) for step in range(5)] == [0, 4, 8, 11, 13]
    assert [plan.first_sample(step, 2) for step in range(5)] == [0, 8, 16, 22, 26]
    for world in (1, 2):
        for step in range(6):
            size = plan.stages[plan.at_step(step)].batch_size * world
            first = plan.first_sample(step, world)
            assert {plan.of_sample(n, world) for n in range(first, first + size)} == {plan.at_step(step)}
    assert Curriculum([{"size": 20, "batch_size": 2, "steps": 0}, {"size": 40.0}], multiple=32).stages[0].size == (
        64,
        64,
    )
    for wrong in ([], [{"size": 8}, {"size": 8}], [{"size": 8, "crop": 1}], [{"size": [1, 2, 3]}]):
        with pytest.raises(AnimegenError):
            Curriculum(wrong)


def test_batches_follow_the_stages_and_ranks_share_them() -> None:
    plan = Curriculum(STAGES)
    whole = list(islice(CurriculumBatchSampler(plan), 5))
    assert whole == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10], [11, 12], [13, 14]]
    assert list(islice(CurriculumBatchSampler(plan, 3), 2)) == whole[3:]
    ranks = [list(islice(CurriculumBatchSampler(plan, 0, rank, 2), 4)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)][2:] == [list(range(16, 22)), list(range(22, 26))]


def test_the_size_is_that_of_the_stage_of_the_sample() -> None:
    clips = ToonWorldFrames(scenes=2, frames=4, size=(24, 40))
    view = CurriculumView(clips, STAGES, gap=2, size=24)
    shapes = [tuple(view[n]["truth"].shape[-2:]) for n in (0, 7, 8, 10, 11)]
    assert shapes == [(16, 16), (16, 16), (8, 32), (8, 32), (32, 32)]
    again = CurriculumView(clips, STAGES, gap=2, size=24)
    for number in (3, 9, 12):
        assert all(torch.equal(value, again[number][key]) for key, value in view[number].items())
    view.world_size = 2
    assert view[8]["first"].shape[-2:] == (16, 16)
    # Without its crop the augmentation keeps every pixel, mirrored or not.
    batch = {key: torch.stack([again[n][key] for n in (8, 9, 10)]) for key in again[8]}
    out = CurriculumAugment(8, reverse=False)(batch)
    assert out["truth"].shape == (3, 1, 3, 8, 32)
    plain = batch["first"].float() / 127.5 - 1
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out["first"], plain, strict=True)]
    turned = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(out["first"], plain, strict=True)]
    assert all(a or b for a, b in zip(same, turned, strict=True))


@pytest.mark.slow
def test_a_run_through_all_stages_resumes_exactly(tmp_path: Path) -> None:
    words = ("experiment=interpolation/curriculum", "precision=fp32", "train_steps=4", "model.discriminator_start=9")
    kept = ("callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=-1")
    whole = train(*words, *kept, output=tmp_path / "whole")
    resumed = train(f"resume={whole}/checkpoints/step-0000002.ckpt", output=tmp_path / "resumed")
    from animegen.engine.checkpoint import read_checkpoint

    assert_same_state(read_checkpoint(whole), read_checkpoint(resumed))
