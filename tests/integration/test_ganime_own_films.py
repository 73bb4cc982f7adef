"""From videos to clips between two of their frames, by the commands that the family's README names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from animegen.cli import evaluate as evaluate_verb
from animegen.cli import generate as generate_verb
from animegen.cli import prepare as prepare_verb
from animegen.data.clips import EpisodeFolders
from animegen.media.video.opening import open_video
from tests.support import run_verb, train

SIDE = 64


def test_videos_become_clips_and_two_frames_become_a_video(tmp_path: Path) -> None:
    films, dataset = tmp_path / "films", tmp_path / "dataset"
    films.mkdir()
    for number in range(3):
        words = (f"toonworld=meadow output={films}/{number}.mp4 shots=[40] side={SIDE} scene={number}").split()
        assert run_verb(prepare_verb.main, *words) == 0
    words = (f"input={films}", f"output={dataset}", "every=2", "length=[15,25]")
    assert run_verb(prepare_verb.main, *words) == 0
    sides = {split: EpisodeFolders(dataset, split) for split in ("train", "val", "test")}
    assert [len(clips) for clips in sides.values()] == [1, 1, 1]
    assert len({clips.episode(0) for clips in sides.values()}) == 3
    assert all(15 <= clips.length(0) <= 25 for clips in sides.values())

    run = train(
        "experiment=ganime/quickstart",
        "data=clips/folders",
        f"data.folder={dataset}",
        "data.batch_size=2",
        "train_steps=2",
        output=tmp_path / "run",
    )
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    clip = dataset / sides["test"].name(0)
    first, *_, last = sorted(clip.iterdir())[:9]
    words = (f"checkpoint={run}", f"first={first}", f"last={last}", f"output={tmp_path / 'new.mp4'}")
    assert run_verb(generate_verb.main, *words, "frames=9", "device=cpu") == 0
    frames = [pixels for pixels, _ in open_video(tmp_path / "new.mp4")]
    assert len(frames) == 9
    assert frames[0].shape == (3, SIDE, SIDE)

    # The same checkpoint at a gap of 8, though it was validated at 4: frame by frame, beside its baselines.
    words = (f"checkpoint={run}", "benchmark=generation", "data.test_gap=8", f"output={tmp_path / 'scores'}")
    assert run_verb(evaluate_verb.main, *words, "device=cpu", "features=none") == 0
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["task"] == "generation_gap8"
    model = scores["methods"]["model"]
    assert {f"{metric}_at_{t}" for metric in ("psnr", "ssim") for t in range(1, 8)} <= set(model)
    beside = {"copy_first", "copy_nearest", "cross_fade"}
    coded = {f"{n}_reconstructed" for n in beside} | {"reconstruction"}
    rendered = {f"{n}_rendered" for n in ("copy_nearest", "cross_fade", "reconstruction")}
    moved = {"ffmpeg_mci", "warp_dis", "warp_dis_averaged"}
    assert set(scores["methods"]) == beside | moved | coded | rendered | {"model"}
    mean = sum(model[f"psnr_at_{t}"]["mean"] for t in range(1, 8)) / 7
    assert model["psnr"]["mean"] == pytest.approx(mean, abs=1e-3)

    # As an interpolator: all seven frames between, beside the flow.
    words = (f"checkpoint={run}", "data.test_gap=8", f"output={tmp_path / 'between'}", "device=cpu", "features=none")
    assert run_verb(evaluate_verb.main, *words) == 0
    scores = json.loads((tmp_path / "between" / "scores.json").read_text())
    assert {"nearest", "blend", "warp_dis", "model"} <= set(scores["methods"])
