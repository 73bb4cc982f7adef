"""What to do with a trained model, for each kind of model."""

from __future__ import annotations

from pathlib import Path

import pytest

from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.engine.module import AnimeModule
from animegen.launch.next_command import next_command
from tests.support import tiny

FAMILIES = {
    "animegan": "stylize checkpoint=last input=photo.jpg output=drawn.jpg",
    "fewshot": "stylize checkpoint=last input=photo.jpg output=drawn.jpg",
    "temporal": "stylize checkpoint=last input=photo.jpg output=drawn.jpg",
    "interpolation": "interpolate checkpoint=last input=video.mp4 output=smooth.mp4 factor=2",
    "ganime": "generate checkpoint=last first=a.png last=b.png output=clip.mp4",
}


@pytest.mark.parametrize(("family", "command"), FAMILIES.items())
def test_every_family_has_its_command(family: str, command: str) -> None:
    config = plain(compose_config("train", tiny(f"experiment={family}/quickstart")))
    model = build(config["model"], "model", AnimeModule)
    assert next_command(model, Path("runs/x/plain/seed0"), config["data"]) == f"animegen {command}"


class Stylist:
    size_divisor = 1

    def stylize(self) -> None: ...


class Betweener:
    size_divisor = 1

    def encode_pair(self) -> None: ...

    def synthesize(self) -> None: ...


def test_the_input_is_that_of_the_training(tmp_path: Path) -> None:
    project = tmp_path / "my clip"
    (project / "keys").mkdir(parents=True)
    (project / "clip.mp4").touch()
    data = {"_target_": "animegen.data.keyframes.KeyframeData", "folder": str(project), "clip": None}
    start = f"animegen stylize checkpoint={tmp_path}/run "
    assert next_command(Stylist(), tmp_path / "run", data) == f"{start}'input={project}/clip.mp4' output=drawn.mp4"
    (project / "frames").mkdir()
    assert next_command(Stylist(), tmp_path / "run", data) == f"{start}'input={project}/frames' output=drawn"
    assert (
        next_command(Stylist(), tmp_path / "run", {**data, "clip": "a.mkv"}) == f"{start}input=a.mkv output=drawn.mp4"
    )
    assert next_command(Stylist(), tmp_path / "run", {"photos": "p"}) == f"{start}input=p output=drawn"
    between = f"animegen interpolate checkpoint={tmp_path}/run "
    found = next_command(Betweener(), tmp_path / "run", {"videos": str(project)})
    assert found == f"{between}'input={project}/clip.mp4' output=smooth.mp4 factor=2"
    assert next_command(object(), tmp_path, {}) is None
