"""Views: samples as pure functions of their number."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from animegen.data.sampler import permutation
from animegen.data.sources import ImageFolder
from animegen.data.views import PairedView, StillView, UnpairedView, scale_short_side
from animegen.errors import AnimegenError
from animegen.media.images import read_image


class Coloured:
    """Image i is of the one colour i, and as big as asked."""

    def __init__(self, length: int, shape: tuple[int, int] = (16, 16), look: str = "photo") -> None:
        self.length, self.shape, self.look = length, shape, look

    def __len__(self) -> int:
        return self.length

    def image(self, index: int) -> torch.Tensor:
        return torch.full((3, *self.shape), index, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"{self.look}-{index}"


class Ruled(Coloured):
    """Image i shows in each pixel its place: column in red, row in green."""

    def image(self, index: int) -> torch.Tensor:
        height, width = self.shape
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        channels = [columns.expand(height, width), rows.expand(height, width), torch.full(self.shape, index)]
        return torch.stack(channels).to(torch.uint8)


def level(picture: torch.Tensor) -> int:
    assert picture.float().std() == 0
    return int(picture[0, 0, 0])


def test_unpaired_streams_are_shuffled_by_themselves() -> None:
    view = UnpairedView(Coloured(7), Coloured(5), size=16, seed=3)
    assert len(view) == 7
    samples = [view[number] for number in range(35)]
    assert [int(sample["sample"]) for sample in samples] == list(range(35))
    for key, length in (("photo", 7), ("anime", 5)):
        taken = [level(sample[key]) for sample in samples]
        for epoch in range(35 // length):
            part = taken[epoch * length : (epoch + 1) * length]
            assert part == permutation(3, key, epoch, length).tolist()
            assert sorted(part) == list(range(length))
    assert view.aligned == [["photo"], ["anime"]]
    assert samples[0]["photo"].dtype == torch.uint8
    assert samples[0]["photo"].shape == (3, 16, 16)


def test_smooth_is_a_stream_of_its_own() -> None:
    view = UnpairedView(Coloured(4), Coloured(4), Coloured(4), size=16)
    assert set(view[0]) == {"photo", "anime", "smooth", "sample"}
    orders = {key: [level(view[number][key]) for number in range(40)] for key in ("photo", "anime", "smooth")}
    assert orders["anime"] != orders["smooth"]
    assert orders["anime"] != orders["photo"]


def test_a_sample_depends_on_number_and_seed_only() -> None:
    def make(seed: int) -> UnpairedView:
        return UnpairedView(Ruled(7, (20, 33)), Ruled(5, (40, 18)), size=16, seed=seed)

    view, again = make(1), pickle.loads(pickle.dumps(make(1)))
    order = [19, 3, 3, 11, 0]
    for number in order:
        for key in ("photo", "anime", "sample"):
            assert torch.equal(view[number][key], again[number][key])
    assert any(not torch.equal(view[number]["photo"], make(2)[number]["photo"]) for number in range(3))


def test_paired_images_share_index_and_crop() -> None:
    view = PairedView(Ruled(6, (16, 40)), Ruled(6, (16, 40), "anime"), size=16, seed=0)
    lefts = set()
    for number in range(60):
        sample = view[number]
        assert torch.equal(sample["photo"], sample["anime"])
        lefts.add(int(sample["photo"][0, 0, 0]))
        assert torch.equal(sample["photo"][0, 0], sample["photo"][0, 0, 0] + torch.arange(16, dtype=torch.uint8))
    assert min(lefts) == 0
    assert max(lefts) == 24  # the last place inside
    assert len(lefts) > 15
    assert view.aligned == [["photo", "anime"]]


def test_evaluation_is_finite_in_order_and_central() -> None:
    view = PairedView(Ruled(3, (30, 16)), Ruled(3, (30, 16)), size=16, shuffle=False)
    assert len(view) == 3
    for number in range(3):
        assert int(view[number]["photo"][2, 0, 0]) == number
        assert view[number]["photo"][1, :, 0].tolist() == list(range(7, 23))
        assert view.name(number) == f"photo-{number}"
    for number in (3, -1):
        with pytest.raises(IndexError):
            view[number]


def test_the_first_stream_counts_evaluation_samples() -> None:
    view = UnpairedView(Coloured(5), Coloured(2), size=16, shuffle=False)
    assert len(view) == 5
    assert [level(view[number]["anime"]) for number in range(5)] == [0, 1, 0, 1, 0]


def test_exact_size_is_untouched() -> None:
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert scale_short_side(picture, 16) is picture
    source = Ruled(2, (16, 16))
    view = StillView(source, key="anime", size=16)
    assert set(view[0]) == {"anime", "sample"}
    assert torch.equal(view[0]["anime"][:2], source.image(0)[:2])


def test_scaling_brings_the_shorter_side_to_size() -> None:
    assert scale_short_side(torch.zeros(3, 64, 200, dtype=torch.uint8), 16).shape == (3, 16, 50)
    assert scale_short_side(torch.zeros(3, 10, 7, dtype=torch.uint8), 16).shape == (3, 23, 16)
    checks = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 200).to(torch.uint8).expand(3, 64, 64)
    # Anti-aliased: fine checks become their mean, and no pattern.
    assert (scale_short_side(checks, 16).int() - 100).abs().max() <= 2


def test_names_follow_the_order() -> None:
    view = UnpairedView(Coloured(6), Coloured(3, look="anime"), size=16, seed=8)
    assert [view.name(number) for number in range(20)] == [f"photo-{level(view[n]['photo'])}" for n in range(20)]


def test_previews_are_the_same_for_every_seed_and_mode() -> None:
    views = [
        PairedView(Ruled(20, (16, 30)), Ruled(20, (16, 30)), size=16, seed=seed, shuffle=shuffle)
        for seed, shuffle in ((0, True), (5, True), (0, False))
    ]
    previews = [view.preview(4) for view in views]
    for preview in previews:
        assert preview["photo"].shape == (4, 3, 16, 16)
        for key in ("photo", "anime", "sample"):
            assert torch.equal(preview[key], previews[0][key])
    assert previews[0]["photo"][:, 2, 0, 0].tolist() == previews[0]["sample"].tolist()
    assert previews[0]["photo"][:, 0, 0, 0].tolist() == [7] * 4  # the centre
    assert len(set(previews[0]["sample"].tolist())) == 4
    # More samples begin with the same ones.
    assert torch.equal(views[0].preview(9)["sample"][:4], previews[0]["sample"])
    assert len(views[0].preview(99)["sample"]) == 20


def test_unpaired_previews_show_the_photos_only() -> None:
    assert set(UnpairedView(Coloured(3), Coloured(3), size=16).preview(2)) == {"photo", "sample"}


def write(folder: Path, count: int, broken: int, colour: int) -> Path:
    folder.mkdir()
    for number in range(count):
        if number == broken:
            (folder / f"{number}.png").write_text("no picture")
        else:
            Image.new("RGB", (20, 20), (number, colour, 0)).save(folder / f"{number}.png")
    return folder


def test_a_pair_is_skipped_as_a_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = ImageFolder(write(tmp_path / "photos", 5, broken=1, colour=1))
    anime = ImageFolder(write(tmp_path / "anime", 5, broken=3, colour=2))
    view = PairedView(photos, anime, size=20, shuffle=False, match="name")
    with caplog.at_level(logging.WARNING):
        pairs = [(int(view[n]["photo"][0, 0, 0]), int(view[n]["anime"][0, 0, 0])) for n in range(5)]
    assert pairs == [(0, 0), (2, 2), (2, 2), (4, 4), (4, 4)]
    assert view.skipped == 2
    assert sorted(view.preview(5)["photo"][:, 0, 0, 0].tolist()) == [0, 2, 4]


def test_folders_of_any_size_and_form(tmp_path: Path) -> None:
    Image.new("RGB", (300, 40), (10, 20, 30)).save(tmp_path / "wide.png")
    Image.new("L", (33, 77), 9).save(tmp_path / "high.png")
    view = StillView(ImageFolder(tmp_path), size=32)
    for number in range(4):
        assert view[number]["photo"].shape == (3, 32, 32)
    assert torch.equal(read_image(tmp_path / "high.png")[:, :32, :32], torch.full((3, 32, 32), 9, dtype=torch.uint8))


def test_mistakes() -> None:
    with pytest.raises(AnimegenError, match=r"'photo': 3, 'anime': 4"):
        PairedView(Coloured(3), Coloured(4), size=16).prepare()
    with pytest.raises(AnimegenError, match="same height and width"):
        PairedView(Coloured(3), Coloured(3, (16, 17)), size=16)[0]
    with pytest.raises(AnimegenError, match="entry 'photo' of a view must be an image source"):
        StillView("photos")  # type: ignore[arg-type]
    with pytest.raises(AnimegenError, match="match=stem"):
        PairedView(Coloured(3), Coloured(3), match="stem")
    with pytest.raises(AnimegenError, match="0 pixels"):
        StillView(Coloured(3), size=0)
