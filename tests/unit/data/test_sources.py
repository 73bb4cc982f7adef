"""Sources: folders with broken files in them, selections, the classic layout."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from animegen.data.sources import (
    ClassicLayout,
    Holdout,
    ImageFolder,
    ImageSource,
    Matched,
    Subset,
    by_name_hash,
    classic_source,
    smooth_source,
)
from animegen.errors import AnimegenError


class Fake:
    """A source whose image i is of the one colour i."""

    def __init__(self, length: int = 10, names: list[str] | None = None) -> None:
        self.names = names or [f"{number:03d}.png" for number in range(length)]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> torch.Tensor:
        return torch.full((3, 20, 20), index, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return self.names[index]


def fill(folder: Path, count: int = 6, broken: tuple[int, ...] = ()) -> Path:
    """Write grey images, image i of level 10 i; broken ones are text."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.png"
        if number in broken:
            path.write_text("no picture")
        else:
            Image.new("L", (20, 18), 10 * number).save(path)
    return folder


def levels(source: ImageSource) -> list[int]:
    return [int(source.image(index)[0, 0, 0]) for index in range(len(source))]


def test_folder(tmp_path: Path) -> None:
    source = ImageFolder(fill(tmp_path, 12))
    assert isinstance(source, ImageSource)
    assert len(source) == 12
    assert source.name(10) == "10.png"
    assert source.image(10).shape == (3, 18, 20)
    assert levels(source) == [10 * number for number in range(12)]
    assert source.skipped == 0
    for index in (12, -1):
        with pytest.raises(IndexError):
            source.image(index)


def test_names_are_paths_below_the_folder(tmp_path: Path) -> None:
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 1)
    assert [ImageFolder(tmp_path).name(index) for index in range(2)] == ["a/0.png", "b/0.png"]


def test_a_folder_is_listed_when_needed(tmp_path: Path) -> None:
    source = ImageFolder(tmp_path / "later")
    with pytest.raises(AnimegenError, match="does not exist"):
        len(source)
    fill(tmp_path / "later")
    assert len(source) == 6


def test_broken_files_are_replaced_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = ImageFolder(fill(tmp_path, 6, broken=(1, 2, 5)))
    with caplog.at_level(logging.WARNING):
        assert levels(source) == [0, 30, 30, 30, 40, 0]
        assert levels(source) == [0, 30, 30, 30, 40, 0]
    assert source.skipped == 3
    for name in ("1.png", "2.png", "5.png"):
        assert sum(name in record.getMessage() for record in caplog.records) == 1
    assert source.load(1) is None
    assert len(source) == 6


def test_broken_files_are_fatal_on_request(tmp_path: Path) -> None:
    source = ImageFolder(fill(tmp_path, 3, broken=(1,)), on_error="fail")
    assert int(source.image(0)[0, 0, 0]) == 0
    with pytest.raises(AnimegenError, match=r"1\.png' is not an image"):
        source.image(1)


def test_tiny_images_are_refused_with_name_and_size(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    Image.new("RGB", (1, 1)).save(tmp_path / "9.png")
    with pytest.raises(AnimegenError, match=r"9\.png' of 1x1 pixels is smaller than min_size=16"):
        ImageFolder(tmp_path, on_error="fail").image(2)
    assert levels(ImageFolder(tmp_path)) == [0, 10, 0]
    assert ImageFolder(tmp_path, min_size=1).image(2).shape == (3, 1, 1)


def test_a_folder_without_a_usable_image(tmp_path: Path) -> None:
    fill(tmp_path, 3, broken=(0, 1, 2))
    with pytest.raises(AnimegenError, match=r"None of the 3 images in .* can be used\. The file .*0\.png"):
        len(ImageFolder(tmp_path))
    with pytest.raises(AnimegenError, match="on_error=ignore"):
        ImageFolder(tmp_path, on_error="ignore")


def test_sources_can_be_pickled(tmp_path: Path) -> None:
    source = Holdout(ImageFolder(fill(tmp_path, 6, broken=(1,))), 0.1)
    expected = levels(source)
    assert levels(pickle.loads(pickle.dumps(source))) == expected


def test_subset() -> None:
    assert levels(Subset(Fake(), 3, 6)) == [3, 4, 5]
    assert levels(Subset(Fake(), 8)) == [8, 9]
    assert Subset(Fake(), 3, 6).name(1) == "004.png"
    with pytest.raises(AnimegenError, match="There are no images 12 to 15 in a source of 10"):
        len(Subset(Fake(), 12, 15))


def test_a_selection_replaces_broken_files_from_itself(tmp_path: Path) -> None:
    folder = ImageFolder(fill(tmp_path, 6, broken=(2,)))
    assert levels(Subset(folder, 0, 3)) == [0, 10, 0]
    assert Subset(folder, 0, 3).skipped == 1


def test_holdout_divides_by_name() -> None:
    source = Fake(1000)
    train, heldout = Holdout(source, 0.1, "train"), Holdout(source, 0.1, "heldout")
    assert sorted([*train.indices, *heldout.indices]) == list(range(1000))
    assert 70 < len(heldout) < 130
    # Images that come later, and other suffixes, move none to the other side.
    more = Fake(names=[f"{number:03d}.jpg" for number in range(1500)])
    kept = [index for index in Holdout(more, 0.1, "heldout").indices if index < 1000]
    assert kept == list(heldout.indices)
    # A greater share contains a smaller one.
    assert set(heldout.indices) < set(Holdout(source, 0.3, "heldout").indices)


def test_holdout_of_few_and_of_none() -> None:
    assert len(Holdout(Fake(2), 0.01, "heldout")) == 1
    assert len(Holdout(Fake(2), 0.01, "train")) == 1
    assert len(Holdout(Fake(5), 0, "train")) == 5
    with pytest.raises(AnimegenError, match=r"leaves none for 'heldout': set data\.val=null data\.stills=null"):
        len(Holdout(Fake(5), 0, "heldout"))
    with pytest.raises(AnimegenError, match=r"none for 'train'.*data\.holdout=0 data\.val=null data\.stills=null"):
        len(Holdout(Fake(1), 0.1, "train"))
    with pytest.raises(AnimegenError, match="A share of 1"):
        Holdout(Fake(5), 1.0)
    with pytest.raises(AnimegenError, match="part=val"):
        Holdout(Fake(5), 0.1, "val")


def test_matched_by_name_without_suffix() -> None:
    photos, drawings = Fake(names=["b.jpg", "x/a.jpg"]), Fake(names=["c.png", "x/a.png", "b.png"])
    matched = Matched(drawings, like=photos)
    assert [matched.name(index) for index in range(2)] == ["b.png", "x/a.png"]
    assert levels(matched) == [2, 1]
    with pytest.raises(AnimegenError, match=r"2 of 2 .* such as 'q\.jpg'"):
        len(Matched(drawings, like=Fake(names=["q.jpg", "r.jpg"])))
    with pytest.raises(AnimegenError, match=r"'a\.png' and 'a\.webp' only differ"):
        len(Matched(Fake(names=["a.png", "a.webp"]), like=Fake(names=["a.jpg"])))


@pytest.fixture
def classic(tmp_path: Path) -> Path:
    for folder, count in {
        "train_photo": 5,
        "Hayao/style": 4,
        "Hayao/smooth": 4,
        "Shinkai/style": 3,
        "val": 2,
        "test/test_photo": 2,
    }.items():
        fill(tmp_path / folder, count)
    return tmp_path


def test_classic_layout(classic: Path) -> None:
    layout = ClassicLayout(classic)
    assert layout.styles() == ["Hayao", "Shinkai"]
    assert len(layout.source("photo")) == 5
    assert len(layout.source("style", "Hayao")) == 4
    assert len(layout.source("smooth", "Hayao")) == 4
    assert len(layout.source("val")) == 2
    assert len(layout.source("test")) == 2
    assert len(classic_source(classic, "style", "Shinkai")) == 3


def test_classic_layout_mistakes(classic: Path) -> None:
    layout = ClassicLayout(classic)
    with pytest.raises(AnimegenError, match=r"no style 'Hayo' .* found: Hayao, Shinkai\. Did you mean 'Hayao'"):
        layout.source("style", "Hayo")
    with pytest.raises(AnimegenError, match=r"Shinkai/smooth' does not exist .* data\.smooth=online"):
        layout.source("smooth", "Shinkai")
    with pytest.raises(AnimegenError, match="part=photos"):
        layout.source("photos")
    with pytest.raises(AnimegenError, match="none' does not exist"):
        ClassicLayout(classic / "none")
    with pytest.raises(AnimegenError, match="it has no folder <style>"):
        ClassicLayout(classic / "val").source("style", "Hayao")


def test_smooth_source(classic: Path) -> None:
    assert smooth_source("online", root=classic, style="Hayao") is None
    assert smooth_source("none") is None
    found = smooth_source("disk", root=classic, style="Hayao")
    assert found is not None
    assert len(found) == 4
    found = smooth_source("disk", folder=classic / "val")
    assert found is not None
    assert len(found) == 2
    with pytest.raises(AnimegenError, match="not used by smooth=online: set smooth=disk"):
        smooth_source("online", folder=classic / "val")
    with pytest.raises(AnimegenError, match="set smooth_folder"):
        smooth_source("disk")


def test_fixed_choice_by_name() -> None:
    order = by_name_hash(Fake(50))
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
    # The order of the files does not matter, only their names.
    names = [f"{number:03d}.png" for number in range(50)]
    backwards = by_name_hash(Fake(names=names[::-1]))
    assert [names[::-1][index] for index in backwards] == [names[index] for index in order]
