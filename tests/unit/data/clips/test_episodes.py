"""Views of whole clips: frames first, numbers after; splits that share no episode; moving digits."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.data.clips import ClipsView, EpisodeFolders, MovingDigits, ToonWorldFrames
from animegen.data.clips.episodes import cover, crop
from animegen.data.sampler import ResumableBatchSampler
from animegen.errors import AnimegenError


class Numbered:
    """Clips of given lengths whose frames hold their clip in red, their number in green, and a ramp in blue."""

    def __init__(self, lengths: list[int], height: int = 8, width: int = 12) -> None:
        self.lengths, self.size = lengths, (height, width)

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, index: int) -> str:
        return f"clip{index}"

    def length(self, index: int) -> int:
        return self.lengths[index]

    def load(self, index: int, number: int) -> Tensor | None:
        ramp = torch.arange(self.size[1]).expand(self.size)
        return torch.stack([torch.full(self.size, index), torch.full(self.size, number), ramp]).to(torch.uint8)


def test_frames_then_numbers_and_one_length_per_batch() -> None:
    view = ClipsView(Numbered([9, 5, 12]), [8, 12], lengths=[3, 5, 20], strides=[1, 2], reverse=True, batch=4, seed=3)
    view.prepare()
    view.frames_until = 8
    batches = [[view[n] for n in batch] for batch, _ in zip(iter(ResumableBatchSampler(4)), range(40), strict=False)]
    for sample in batches[0] + batches[1]:
        assert set(sample) == {"frame", "sample"}
        assert sample["frame"].shape == (3, 8, 12)
        clip, number = sample["frame"][:2, 0, 0].tolist()
        assert number < view.clips.length(clip)
    seen = set()
    for batch in batches[2:]:
        assert len({len(sample["frames"]) for sample in batch}) == 1
        for sample in batch:
            assert set(sample) == {"clip", "frames", "mirror", "sample"}
            shown = sample["frames"].tolist()
            assert min(shown) >= 0
            assert max(shown) < view.clips.length(int(sample["clip"]))
            (stride,) = set(sample["frames"].diff().tolist())
            seen.add((len(shown), stride, int(sample["mirror"])))
    # 20 frames no clip has; every second of five frames needs nine, which two clips have.
    assert {(length, stride) for length, stride, _ in seen} == {(n, s) for n in (3, 5) for s in (1, -1, 2, -2)}
    assert {mirror for _, _, mirror in seen} == {0, 1}
    again = ClipsView(Numbered([9, 5, 12]), [8, 12], lengths=[3, 5, 20], strides=[1, 2], reverse=True, batch=4, seed=3)
    again.frames_until = 8
    assert all(torch.equal(again[n][key], value) for n in (0, 5, 8, 77) for key, value in view[n].items())


def test_training_frames_with_ends_lie_at_their_time_between_two_frames_of_the_same_clip() -> None:
    clips = Numbered([9, 5, 12])
    view = ClipsView(clips, [8, 12], lengths=[3, 5], strides=[1, 2], reverse=True, batch=4, seed=3)
    view.prepare()
    view.with_ends = True
    times = set()
    for sample in (view[n] for n in range(200)):
        assert set(sample) == {"frame", "first", "last", "t", "sample"}
        (first, a), (frame, b), (last, c) = (sample[key][:2, 0, 0].tolist() for key in ("first", "frame", "last"))
        assert first == frame == last
        assert min(a, c) < b < max(a, c)
        assert float(sample["t"]) == pytest.approx((b - a) / (c - a))
        assert torch.equal(sample["first"][2], sample["last"][2])  # mirrored alike
        assert torch.equal(sample["first"][2], sample["frame"][2])
        times.add((abs(c - a), float(sample["t"])))
    assert times == {(span, t) for span in (2, 4) for t in (0.5,)} | {(s, t) for s in (4, 8) for t in (0.25, 0.5, 0.75)}
    # The same pieces after a clip has lost a frame, but for those that showed it.
    load = clips.load
    clips.load = lambda index, number: None if (index, number) == (0, 4) else load(index, number)  # type: ignore[method-assign]
    shown = [view[n] for n in range(200)]
    assert all(
        tuple(sample[key][:2, 0, 0].tolist()) != (0, 4) for sample in shown for key in ("first", "frame", "last")
    )
    clips.load = lambda index, number: None  # type: ignore[method-assign]
    with pytest.raises(AnimegenError, match="None of the 3 clips"):
        view[0]


def test_training_frames_are_mirrored_and_cut_at_random_and_others_are_not() -> None:
    plain = ClipsView(Numbered([4]), [8, 12], lengths=[3], mirror=False)
    ramps = {tuple(plain[n]["frame"][2, 0].tolist()) for n in range(8)}
    assert ramps == {tuple(range(12))}
    mirrored = ClipsView(Numbered([4]), [8, 12], lengths=[3])
    ramps = {tuple(mirrored[n]["frame"][2, 0].tolist()) for n in range(16)}
    assert ramps == {tuple(range(12)), tuple(reversed(range(12)))}
    zoomed = ClipsView(Numbered([4], 64, 96), [64, 96], lengths=[3], mirror=False, zoom=1.5)
    firsts = {int(zoomed[n]["frame"][2, 0, 0]) for n in range(16)}
    assert len(firsts) > 5
    assert all(zoomed[n]["frame"].shape == (3, 64, 96) for n in range(16))
    shown = zoomed.frame(0, 2)
    assert shown is not None
    assert shown[:, 0, -1].tolist() == [0, 2, 95]


def test_frames_cover_their_size_and_keep_their_proportions() -> None:
    picture = torch.zeros(3, 30, 40, dtype=torch.uint8)
    picture[..., 20:] = 200
    assert cover(picture, (15, 30)).shape == (3, 22, 30)
    cut = crop(cover(picture, (15, 30)), (15, 30))
    assert cut.shape == (3, 15, 30)
    assert cut[0, 0, [0, 29]].tolist() == [0, 200]
    assert cover(picture, (30, 40)) is picture


def test_evaluation_gives_whole_clips() -> None:
    view = ClipsView(Numbered([9, 12]), [8, 8], gap=4, pairs=2, shuffle=False)
    view.prepare()
    assert len(view) == 4
    sample = view[3]
    assert sample["truth"].shape == (3, 3, 8, 8)
    start = int(sample["first"][1, 0, 0])
    assert sample["truth"][:, 1, 0, 0].tolist() == [start + 1, start + 2, start + 3]
    assert int(sample["last"][1, 0, 0]) == start + 4
    assert sample["t"].tolist() == [0.25, 0.5, 0.75]
    assert sample["first"][2, 0].tolist() == list(range(2, 10))


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="must be at least 3"):
        ClipsView(Numbered([9]), 8, lengths=[2])
    with pytest.raises(AnimegenError, match="the longest has 4"):
        ClipsView(Numbered([4]), 8, lengths=[5]).prepare()
    with pytest.raises(AnimegenError, match="zoom"):
        ClipsView(Numbered([4]), 8, lengths=[3], zoom=0.5)


# --- splits ---------------------------------------------------------------------------------------------------


def clips_in(folder: Path, episodes: int, clips: int = 3) -> None:
    for episode in range(episodes):
        for clip in range(clips):
            place = folder / f"film{episode:02d}" / f"{clip:03d}"
            place.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (4, 4), (episode, clip, number)).save(place / f"{number}.png")


def test_splits_share_no_episode_and_episodes_stay_where_they_are(tmp_path: Path) -> None:
    clips_in(tmp_path, 20)
    sides = {split: EpisodeFolders(tmp_path, split, holdout=0.2) for split in ("train", "val", "test")}
    episodes = {split: {source.episode(i) for i in range(len(source))} for split, source in sides.items()}
    assert sum(len(names) for names in episodes.values()) == len(set.union(*episodes.values())) == 20
    assert all(len(names) > 0 for names in episodes.values())
    assert sum(len(source) for source in sides.values()) == 60
    frame = sides["val"].load(0, 2)
    assert frame is not None
    assert f"film{int(frame[0, 0, 0]):02d}" == sides["val"].episode(0)
    clips_in(tmp_path / "more", 1)
    (tmp_path / "more" / "film00").rename(tmp_path / "film99")
    (tmp_path / "more").rmdir()
    later = {split: EpisodeFolders(tmp_path, split, holdout=0.2) for split in sides}
    for split, source in later.items():
        assert episodes[split] <= {source.episode(i) for i in range(len(source))}


@pytest.mark.parametrize("episodes", [3, 4, 5])
def test_however_few_the_episodes_no_side_is_empty(episodes: int, tmp_path: Path) -> None:
    clips_in(tmp_path, episodes, clips=1)
    for holdout in (0.01, 0.2, 0.49):
        lengths = [len(EpisodeFolders(tmp_path, split, holdout)) for split in ("train", "val", "test")]
        assert min(lengths) >= 1
        assert sum(lengths) == episodes


def test_too_few_episodes_are_reported(tmp_path: Path) -> None:
    clips_in(tmp_path, 2)
    with pytest.raises(AnimegenError, match="has 2 episodes"):
        len(EpisodeFolders(tmp_path))


def test_drawn_splits_share_nothing() -> None:
    names = {
        split: {source.name(i) for i in range(len(source))}
        for split in ("train", "val", "test")
        for source in (ToonWorldFrames("meadow", split, 4, 3, 32), MovingDigits(None, split, 4))
    }
    assert sum(len(n) for n in names.values()) == len(set.union(*names.values()))
    pictures = [MovingDigits(None, split, 1, seed=0).load(0, 0) for split in ("train", "val", "test")]
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[1], pictures[2])


# --- moving digits -----------------------------------------------------------------------------------------------


def test_digits_move_steadily_and_bounce() -> None:
    source = MovingDigits(None, "train", 40, frames=20)
    assert torch.equal(source.load(3, 7), MovingDigits(None, "train", 5, frames=20).load(3, 7))
    frame = source.load(0, 0)
    assert frame.shape == (3, 64, 64)
    assert torch.equal(frame[0], frame[2])
    assert frame.max() == 255
    assert 0.02 < (frame[0] > 127).float().mean() < 0.25
    for which in range(2):
        key = ("digits", 0, "train", 5, which)
        places = torch.tensor([source._place(key, number, 36) for number in range(20)])
        assert places.min() >= 0
        assert places.max() <= 36
        steps = places.diff(dim=0).float().norm(dim=1)
        assert steps.max() <= 5 + 1.5  # at most 5 pixels per frame, rounded
        assert steps.median() >= 2 - 1.5
    assert MovingDigits(None, "train", 2, size=32).load(0, 0).shape == (3, 32, 32)


def test_the_published_file_is_read_and_divided(tmp_path: Path) -> None:
    table = np.zeros((20, 30, 64, 64), np.uint8)
    table += np.arange(30, dtype=np.uint8)[None, :, None, None]
    table[:, :, 0, 0] = np.arange(20)[:, None]
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, table)
    sides = [MovingDigits(path, split, 1000, frames=10) for split in ("train", "val", "test")]
    assert [len(side) for side in sides] == [24, 3, 3]
    assert [int(side.load(len(side) - 1, 9)[1, 5, 5]) for side in sides] == [23, 26, 29]
    assert int(sides[0].load(0, 9)[0, 0, 0]) == 9
    assert len(MovingDigits(path, clips=5)) == 5
    copy = pickle.loads(pickle.dumps(sides[1]))
    assert "_table" not in copy.__dict__
    assert torch.equal(copy.load(1, 1), sides[1].load(1, 1))
    np.save(path, table[:, :, :, :32])
    with pytest.raises(AnimegenError, match="uint8 as MovingMNIST"):
        MovingDigits(path)
    with pytest.raises(AnimegenError, match="does not exist"):
        MovingDigits(tmp_path / "nothing.npy")
