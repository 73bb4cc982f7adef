"""Pairs of frames with what lies between: which frames, at what times, from which sources."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.data.clips import ClipAugment, ClipView, MixedClips, ToonWorldFrames, TripletFolders
from animegen.errors import AnimegenError
from animegen.toonworld import Scene


class Numbered:
    """Clips whose frame n is the grey 10 * clip + n, with a white left half."""

    def __init__(self, clips: int = 3, frames: int = 9, broken: tuple[int, int] | None = None) -> None:
        self.clips, self.frames, self.broken = clips, frames, broken

    def __len__(self) -> int:
        return self.clips

    def name(self, index: int) -> str:
        return f"clip{index}"

    def length(self, index: int) -> int:
        return self.frames

    def load(self, index: int, number: int) -> Tensor | None:
        if (index, number) == self.broken:
            return None
        frame = torch.full((3, 8, 8), 10 * index + number, dtype=torch.uint8)
        frame[:, :, :4] = 255
        return frame


def grey(frame: Tensor) -> int:
    return int(frame[0, 0, -1])


def test_evaluation_takes_the_same_pairs_spread_over_each_clip() -> None:
    view = ClipView(Numbered(), size=8, gap=4, pairs=2, shuffle=False)
    found = [
        (grey(s["first"]), grey(s["truth"][0]), grey(s["last"]), s["t"].tolist())
        for s in (view[n] for n in range(len(view)))
    ]
    # Nine frames have five places for a gap of four: pairs begin at 5 / 4 = 1 and 15 / 4 = 3.
    assert found == [(10 * c + a, 10 * c + a + 2, 10 * c + a + 4, [0.5]) for c in range(3) for a in (1, 3)]
    assert view.name(1) == "clip0-3-7"


def test_all_frames_between_come_in_order_with_their_times() -> None:
    sample = ClipView(Numbered(), size=8, gap=4, middle="all", shuffle=False)[0]
    assert [grey(f) for f in sample["truth"]] == [3, 4, 5]
    assert sample["t"].tolist() == [0.25, 0.5, 0.75]


def test_training_samples_are_functions_of_their_number_and_use_every_gap() -> None:
    view = ClipView(Numbered(), size=8, gap=[2, 4, 20], middle="random", seed=3)
    samples = [view[n] for n in range(60)]
    for sample in samples:
        first, truth, last = grey(sample["first"]), grey(sample["truth"][0]), grey(sample["last"])
        assert last - first in (2, 4)  # a gap of 20 does not fit into nine frames
        assert sample["t"].item() == pytest.approx((truth - first) / (last - first))
    gaps = [grey(s["last"]) - grey(s["first"]) for s in samples]
    assert 15 < gaps.count(2) < 45
    again = ClipView(Numbered(), size=8, gap=[2, 4, 20], middle="random", seed=3)
    assert all(torch.equal(again[n][k], samples[n][k]) for n in (0, 7, 59) for k in samples[0])
    # Each run of three samples shows every clip once.
    assert sorted(grey(s["first"]) // 10 for s in samples[:3]) == [0, 1, 2]


def test_a_clip_with_a_broken_frame_is_replaced_by_the_next() -> None:
    view = ClipView(Numbered(broken=(0, 4)), size=8, gap=4, shuffle=False)
    assert grey(view[0]["first"]) // 10 == 1


def test_whole_frames_and_crops() -> None:
    class Wide(Numbered):
        def load(self, index: int, number: int) -> Tensor:
            return torch.arange(12, dtype=torch.uint8).expand(3, 8, 12).clone()

    whole = ClipView(Wide(), size=8, gap=2, shuffle=False, crop=False)[0]
    assert whole["truth"].shape == (1, 3, 8, 12)
    square = ClipView(Wide(), size=8, gap=2, shuffle=False)[0]
    assert square["first"][0, 0].tolist() == list(range(2, 10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gap": 1}, "leaves no frame"),
        ({"gap": [2, 4], "shuffle": False}, "needs one gap|set one gap"),
        ({"middle": "end"}, "unknown"),
        ({"middle": "random", "shuffle": False}, "for training"),
        ({"crop": False}, "crop=true"),
    ],
)
def test_invalid_values_are_reported(settings: dict, message: str) -> None:
    with pytest.raises(AnimegenError, match=message):
        ClipView(Numbered(), size=8, **settings)


def test_a_gap_longer_than_a_clip_is_reported_before_training() -> None:
    with pytest.raises(AnimegenError, match="has 9 frames, too few"):
        ClipView(Numbered(), size=8, gap=9).prepare()


def test_toonworld_gives_its_own_frames() -> None:
    source = ToonWorldFrames("dusk", "val", scenes=2, frames=4, size=32, speed=0.5)
    assert (len(source), source.length(1), source.name(1)) == (2, 4, "val-0001-dusk")
    scene = Scene(seed=0, split="val", index=1, size=32, frames=4, speed=0.5, hold=1)
    assert torch.equal(source.load(1, 2), torch.from_numpy(scene.anime(2, "dusk").copy()).permute(2, 0, 1))


def batch() -> dict[str, Tensor]:
    view = ClipView(Numbered(1), size=8, gap=4, middle="all", shuffle=False)
    one = view[0]
    many = {key: torch.stack([value] * 40) for key, value in one.items()}
    return many | {"sample": torch.arange(40)}


def test_augmentation_treats_all_frames_alike_and_reverses_time_with_its_times() -> None:
    plain = batch()
    out = ClipAugment(8, seed=1)(plain)
    levels = ((out["truth"][:, :, 0, 0] + 1) * 127.5).round()
    back = (out["first"] > out["last"]).flatten(1).any(1)
    assert 10 < int(back.sum()) < 30
    for n in range(40):
        side = 0 if float(out["first"][n, 0, 0, -1]) == 1 else -1  # the grey half
        assert all(float(out[key][n, 0, 0, side]) != 1 for key in ("first", "last"))
        assert levels[n, :, side].tolist() == ([5, 4, 3] if back[n] else [3, 4, 5])
    assert out["t"][0].tolist() == [0.25, 0.5, 0.75]  # time runs from first to last either way
    again = ClipAugment(8, seed=1)({key: value[5:9] for key, value in plain.items()})
    assert all(torch.equal(again[key], out[key][5:9]) for key in again)


def test_further_augmentations_do_what_they_say() -> None:
    plain = {key: value[:1] for key, value in batch().items()}
    plain["first"] = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8).clone()
    plain["first"][:, :, 0] = 9
    out = ClipAugment(8, flip=False, reverse=False, upside_down=1.0, permute=True, seed=0)(plain)
    first = ((out["first"] + 1) * 127.5).round()[0]
    assert (first[:, -1] == 9).all()
    assert sorted(first[:, 0, 0].tolist()) == [0, 1, 2]


def write(path: Path, level: int, size: tuple[int, int] = (20, 18)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def test_vimeo_layout(tmp_path: Path) -> None:
    for number in range(4):
        for frame in (1, 2, 3):
            write(tmp_path / f"sequences/00001/{number:04}/im{frame}.png", 10 * number + frame)
    (tmp_path / "tri_trainlist.txt").write_text("00001/0000\n00001/0001\n00001/0002\n")
    (tmp_path / "tri_testlist.txt").write_text("00001/0003\n\n")
    parts = {split: TripletFolders(tmp_path, split=split) for split in ("train", "val", "test")}
    names = {split: [part.name(n) for n in range(len(part))] for split, part in parts.items()}
    assert names["test"] == ["sequences/00001/0003"]
    assert (len(names["train"]), len(names["val"])) == (2, 1)
    assert not set(names["train"]) & set(names["val"])
    assert [int(parts["test"].load(0, n)[0, 0, 0]) for n in range(3)] == [31, 32, 33]
    assert TripletFolders(tmp_path, "vimeo90k").length(0) == 3


def test_atd_layout(tmp_path: Path) -> None:
    for name in ("Disney_v1", "Japan_v2"):
        for frame in (1, 2, 3):
            write(tmp_path / f"train_10k/{name}/frame{frame}.jpg", 50)
            write(tmp_path / f"test_2k_540p/{name}/frame{frame}.png", 60 + frame)
    test = TripletFolders(tmp_path, split="test")
    assert [test.name(n) for n in range(len(test))] == ["test_2k_540p/Disney_v1", "test_2k_540p/Japan_v2"]
    assert int(test.load(1, 2)[0, 0, 0]) == 63
    with pytest.raises(AnimegenError, match="split=all is not available"):
        TripletFolders(tmp_path, split="all").prepare()
    assert len(TripletFolders(tmp_path, split="train")) == len(TripletFolders(tmp_path, split="val")) == 1


def test_folders_of_frames_in_natural_order_and_broken_files(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11):
        write(tmp_path / f"shot a/{number}.png", number)
    for number in range(3):
        write(tmp_path / f"shot b/f{number}.png", 100)
    write(tmp_path / "single/1.png", 1)
    both = [TripletFolders(tmp_path, "folders", split, 0.4) for split in ("train", "val")]
    found = {part.name(n): part for part in both for n in range(len(part))}
    assert set(found) == {"shot a", "shot b"}
    assert {everything.name(n) for everything in [TripletFolders(tmp_path, split="all")] for n in range(2)} == set(
        found
    )
    part = found["shot a"]
    assert [int(part.load(0, n)[0, 0, 0]) for n in range(part.length(0))] == [1, 2, 10, 11]
    (tmp_path / "shot a/2.png").write_text("no picture")
    assert part.load(0, 1) is None
    assert part.skipped == 1
    strict = TripletFolders(tmp_path, "folders", part.split, 0.4, on_error="fail")
    with pytest.raises(AnimegenError, match=r"2\.png"):
        strict.load(0, 1)


def test_clips_behind_links_are_found(tmp_path: Path) -> None:
    for frame in range(3):
        write(tmp_path / f"elsewhere/one/{frame}.png", 40)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/linked/one/back").symlink_to(tmp_path / "set")
    source = TripletFolders(tmp_path / "set", split="all")
    assert [source.name(n) for n in range(len(source))] == ["linked/one"]


def test_mixed_clips_are_those_of_all_sources_some_of_them_often() -> None:
    mixed = MixedClips({"real": Numbered(2, frames=3, broken=(1, 0)), "drawn": Numbered(3)}, {"real": 2})
    names = ["real/clip0", "real/clip1", "real/clip0#2", "real/clip1#2", "drawn/clip0", "drawn/clip1", "drawn/clip2"]
    assert [mixed.name(n) for n in range(len(mixed))] == names
    assert [mixed.length(n) for n in range(len(mixed))] == [3] * 4 + [9] * 3
    assert (grey(mixed.load(3, 2)), grey(mixed.load(6, 8)), mixed.load(1, 0)) == (12, 28, None)
    with pytest.raises(IndexError):
        mixed.load(7, 0)
    view = ClipView(mixed, size=8, gap=[2, 4], seed=1)
    seen = [view.name(number).split("-") for number in range(70)]
    assert {name for name, *_ in seen} == set(names)
    assert {int(last) - int(first) for name, first, last in seen if name.startswith("real")} == {2}
    # A broken clip makes room for the next one.
    assert all(grey(view[n]["last"]) - grey(view[n]["first"]) in (2, 4) for n in range(30))


def test_mixtures_that_cannot_be_are_reported() -> None:
    with pytest.raises(AnimegenError, match="at least one source"):
        MixedClips({})
    with pytest.raises(AnimegenError, match="Did you mean 'real'"):
        MixedClips({"real": Numbered()}, {"rael": 2})
    with pytest.raises(AnimegenError, match="use 1 or more"):
        MixedClips({"real": Numbered()}, {"real": 0})


def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="does not exist"):
        TripletFolders(tmp_path / "no").prepare()
    with pytest.raises(AnimegenError, match="no clip for 'train'"):
        TripletFolders(tmp_path).prepare()
    with pytest.raises(AnimegenError, match="lists"):
        TripletFolders(tmp_path, "vimeo90k").prepare()
    with pytest.raises(AnimegenError, match="Did you mean 'vimeo90k'"):
        TripletFolders(tmp_path, "vimeo90")


def test_the_configurations_build_batches_of_all_sources(tmp_path: Path) -> None:
    for number in range(3):
        for frame in (1, 2, 3):
            write(tmp_path / f"{number}/frame{frame}.png", 40 * frame, (80, 70))
    small = ["scenes=2", "val_scenes=1", "test_scenes=1", "frames=7"]
    for words in (
        ["data=triplets/folders", f"data.folder={tmp_path}"],
        ["data=triplets/toonworld", *(f"data.{word}" for word in small)],
        ["data=triplets/mixed", f"data.folder={tmp_path}", "data.scenes=2", "data.frames=7"],
    ):
        config = compose_config("train", ["model=interpolation/unet", "size=tiny", *words])
        data = build(config.data, "data")
        data.setup("fit")
        samples = [data.train[n] for n in range(2)]
        made = data.finish_training({key: torch.stack([s[key] for s in samples]) for key in samples[0]})
        assert {key: tuple(value.shape) for key, value in made.items()} == {
            "first": (2, 3, 32, 32),
            "last": (2, 3, 32, 32),
            "truth": (2, 1, 3, 32, 32),
            "t": (2, 1),
            "sample": (2,),
        }
        assert data.test[0]["truth"].shape == (1, 3, 64, 64)
        assert data.preview_batch(1)["first"].shape == (1, 3, 64, 64)
