"""The group ``data``: every option builds, and its short keys reach the places where they matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from animegen.config.compose import compose_config, register
from animegen.data import AnimeDataModule, ImageFolder, PairedView, StillView, UnpairedView
from animegen.errors import AnimegenError

CONFIGS = Path(__file__).parents[3] / "conf" / "data"
OPTIONS = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))
COUNTS = ("data.scenes=2", "data.val_scenes=1", "data.test_scenes=1", "data.frames_per_scene=1")


def build(option: str, *overrides: str) -> AnimeDataModule:
    """Build an option of the group as a run does, below the top-level keys that it may refer to."""
    register()
    top = OmegaConf.create({"seed": 7, "size": {"image_size": 32, "batch_size": 2}})
    config = OmegaConf.merge(
        top, {"data": OmegaConf.load(CONFIGS / f"{option}.yaml")}, OmegaConf.from_dotlist([*overrides])
    )
    data = instantiate(config.data)
    assert isinstance(data, AnimeDataModule)
    return data


def step(data: AnimeDataModule) -> dict[str, torch.Tensor]:
    data.setup("fit")
    return data.finish_training(next(iter(data.train_dataloader())))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_lies_in_the_package_data(option: str) -> None:
    text = (CONFIGS / f"{option}.yaml").read_text()
    assert text.startswith("# @package data\n")
    keys = set(compose_config("train", [f"data={option}"], complete=False).data)
    assert {"_target_", "_convert_", "batch_size", "repeat_first_batch"} <= keys
    if option.startswith(("paired/", "unpaired/")):  # images, rather than one clip or many
        assert {"image_size", "load_size", "smooth", "train", "val", "test", "stills", "augment"} <= keys


def test_unpaired_toonworld() -> None:
    data = build("unpaired/toonworld", "data.style=print", *COUNTS)
    assert isinstance(data.train, UnpairedView)
    assert isinstance(data.val, PairedView)
    assert isinstance(data.test, PairedView)
    photos, anime = data.train.sources["photo"], data.train.sources["anime"]
    scenes = [{source.name(index).rsplit("-", 1)[0] for index in range(len(source))} for source in (photos, anime)]
    assert len(scenes[0]) == len(scenes[1]) == 2
    assert not scenes[0] & scenes[1]
    assert anime.name(0).endswith("print")
    batch = step(data)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "photo": (2, 3, 32, 32),
        "anime": (2, 3, 32, 32),
        "smooth": (2, 3, 32, 32),
        "sample": (2,),
    }
    assert data.settings["style"] == "print"
    assert data.settings["load_size"] == 64
    assert data.train.seed == 7
    assert data.augment is not None
    assert data.augment.seed == 7
    assert isinstance(data.stills, StillView)
    names = [view.sources["anime"].name(0) for view in (data.test, data.stills)]
    assert names[0].replace("0000", "0001") == names[1]


def test_paired_toonworld() -> None:
    data = build("paired/toonworld", *COUNTS)
    assert isinstance(data.train, PairedView)
    names = [data.train.sources[key].name(0).rsplit("-", 1)[0] for key in ("photo", "anime")]
    assert names[0] == names[1]
    assert set(step(data)) == {"photo", "anime", "sample"}


def fill(folder: Path, count: int, shape: tuple[int, int] = (50, 40)) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", shape, (number, 9, 9)).save(folder / f"{number}.png")
    return folder


def test_unpaired_folders(tmp_path: Path) -> None:
    photos, anime = fill(tmp_path / "photos", 20), fill(tmp_path / "anime", 3)
    data = build("unpaired/folders", f"data.photos={photos}", f"data.anime={anime}", "data.holdout=0.3")
    assert isinstance(data.stills, StillView)
    assert len(data.stills) + len(data.train.sources["anime"]) == 3
    assert set(step(data)) == {"photo", "anime", "smooth", "sample"}
    assert isinstance(data.val, StillView)
    parts = [view.sources["photo"] for view in (data.train, data.val)]
    names = [{part.name(index) for index in range(len(part))} for part in parts]
    assert not names[0] & names[1]
    assert names[0] | names[1] == {f"{number}.png" for number in range(20)}
    assert set(data.preview_batch(2)) == {"photo", "sample"}
    assert data.settings["photos"] == str(photos)


def test_smooth_folder(tmp_path: Path) -> None:
    folders = [f"data.{key}={fill(tmp_path / key, 4)}" for key in ("photos", "anime", "smooth_folder")]
    data = build("unpaired/folders", *folders, "data.smooth=disk")
    assert isinstance(data.train.sources["smooth"], ImageFolder)
    assert set(step(data)) == {"photo", "anime", "smooth", "sample"}


def test_classic(tmp_path: Path) -> None:
    for folder in ("train_photo", "Hayao/style", "Hayao/smooth", "val"):
        fill(tmp_path / folder, 3, (32, 32))
    data = build("unpaired/classic", f"data.root={tmp_path}", "data.style=Hayao")
    assert set(step(data)) == {"photo", "anime", "smooth", "sample"}
    assert isinstance(data.val, StillView)
    assert len(data.val) == 3
    assert isinstance(data.stills, StillView)
    assert len(data.stills) == 3
    online = build("unpaired/classic", f"data.root={tmp_path}", "data.style=Hayao", "data.smooth=online")
    assert set(online.train.sources) == {"photo", "anime"}
    assert set(step(online)) == {"photo", "anime", "smooth", "sample"}


def test_paired_folders(tmp_path: Path) -> None:
    photos, anime = fill(tmp_path / "photos", 12), fill(tmp_path / "anime", 14)
    data = build("paired/folders", f"data.photos={photos}", f"data.anime={anime}")
    data.setup("fit")
    for number in range(12):
        sample = data.train[number]
        assert torch.equal(sample["photo"], sample["anime"])
    assert isinstance(data.val, PairedView)
    assert len(data.val) + len(data.train) == 12
    (anime / "3.png").unlink()
    again = build("paired/folders", f"data.photos={photos}", f"data.anime={anime}")
    with pytest.raises(AnimegenError, match=r"no counterpart .* '3\.png'"):
        again.setup("fit")
