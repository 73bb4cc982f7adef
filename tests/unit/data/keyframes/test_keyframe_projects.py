"""Projects: all errors are reported at once, other layouts are read, the next key is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from animegen.cli import prepare
from animegen.data.keyframes import KeyframeProject, folder_project, toonworld_project
from animegen.data.keyframes.alignment import misplaced
from animegen.data.keyframes.folder import inspect
from animegen.data.keyframes.layouts import import_layout
from animegen.data.keyframes.suggest import suggest_keys
from animegen.errors import AnimegenError
from animegen.media.images import read_image, write_image
from animegen.toonworld import Scene
from tests.support import refused, run_verb


def save(path: Path, height: int = 24, width: int = 32, mode: str = "RGB", seed: int = 0, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.random.default_rng(seed).integers(0, 255, (height, width, *channels), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)


def small_project(root: Path, frames: int = 5, keys: tuple[int, ...] = (1, 3)) -> Path:
    for n in range(frames):
        save(root / "frames" / f"{n:03d}.png", seed=n)
    for n in keys:
        save(root / "keys" / f"{n:03d}.png", seed=100 + n)
    return root


def white(path: Path, box: tuple[int, int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", (32, 24))
    picture.paste(255, box)
    picture.save(path)


def test_a_project_is_read(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    white(root / "masks" / "001.png", (4, 2, 20, 20))
    for n in range(5):
        save(root / "guides" / "depth" / f"{n:03d}.png", mode="L", seed=n)
    project = folder_project(root)
    assert len(project) == 5
    assert project.keys == [1, 3]
    assert project.names == ["000", "001", "002", "003", "004"]
    assert torch.equal(project.drawings[3], read_image(root / "keys" / "003.png"))
    assert torch.equal(project.photo[2], read_image(root / "frames" / "002.png"))
    assert project.masks[1].nonzero().amin(0).tolist() == [2, 4]
    assert int(project.masks[1].sum()) == 16 * 18
    assert project.guides["depth"][4].shape == (1, 24, 32)
    assert project.scored == []
    assert project.nearest_key(2) == 1
    held = folder_project(root, hold_out=["003"])
    assert held.keys == [1]
    assert held.scored == [3]
    assert torch.equal(held.answer(3), project.drawings[3])
    assert folder_project(root, hold_out=1).scored == [3]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    save(root / "frames" / "004.png", height=20)  # another size
    save(root / "keys" / "009.png")  # no such frame
    save(root / "keys" / "000.png", height=48, width=64)  # another size
    save(root / "keys" / "002.png", mode="RGBA")  # transparent
    (root / "frames" / "001.jpg").write_bytes(b"no picture")
    save(root / "frames" / "jpeg.jpg")
    (root / "frames" / "jpeg.jpg").rename(root / "frames" / "003.png")  # JPEG data
    white(root / "masks" / "001.png", (4, 4, 8, 8))  # too small
    white(root / "masks" / "004.png", (0, 0, 32, 24))  # of no key
    for n in range(4):
        save(root / "guides" / "depth" / f"{n:03d}.png", mode="L" if n else "RGB")
    (root / "project.yaml").write_text("hold_out: ['007']\nrang: [0, 3]\nguides: {normals: 3}\n")
    with pytest.raises(AnimegenError) as caught:
        folder_project(root)
    text = str(caught.value)
    for part in (
        "several frames have the name '001': keep one",
        "the frame '001.jpg' cannot be read",
        "the frame '003.png' has JPEG data and the suffix .png",
        "the frame '004.png' has 32x20 pixels, the frames have 32x24: scale it.",
        "the drawing '009.png' matches no frame: rename it. Did you mean '00",
        "the drawing '000.png' has 64x48 pixels, the frames have 32x24: scale it or set resize=true.",
        "the drawing '002.png' has transparent pixels",
        "the mask '001.png' leaves no position for a patch",
        "the mask '004.png' has no drawing",
        "the guide 'depth' lacks 2 of 6 frames",
        "the images of the guide 'depth' differ in their number of channels: 1 ('001.png') and 3 ('000.png')",
        "the guide 'normals' has no folder 'guides/normals'",
        "hold_out has the unknown key '007'",
        "'project.yaml' has the unknown key 'rang'. Did you mean 'range'?",
    ):
        assert part in text
    assert text.count("\n  - ") == int(text.split(" has ")[1].split()[0])


def test_images_are_looked_at_to_the_last_pixel(tmp_path: Path) -> None:
    root = small_project(tmp_path)
    for file in ("frames/002.png", "keys/003.png"):
        data = (root / file).read_bytes()
        (root / file).write_bytes(data[: len(data) // 2])  # the head is whole
    save(root / "keys" / "².png")  # a digit that is no number
    with pytest.raises(AnimegenError) as caught:
        folder_project(root)
    for part in (
        "the frame '002.png' cannot be read",
        "the drawing '003.png' cannot be read",
        "the drawing '².png' matches no frame",
    ):
        assert part in str(caught.value)


def test_an_image_that_claims_to_be_huge_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("input", "output"):
        save(tmp_path / "some_train" / folder / "0.png")
    save(tmp_path / "some_train" / "input" / "1.bmp")
    data = bytearray((tmp_path / "some_train" / "input" / "1.bmp").read_bytes())
    data[18:26] = (100_000).to_bytes(4, "little") * 2  # width and height
    (tmp_path / "some_train" / "input" / "1.bmp").write_bytes(data)
    assert run_verb(prepare.main, f"import={tmp_path / 'some_train'}", f"output={tmp_path / 'project'}") == 1
    assert "the frame '1.bmp' cannot be read: The image" in capsys.readouterr().out


def test_images_are_measured_as_they_are_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    for n in range(3):
        save(tmp_path / "frames" / f"{n}.jpg", seed=n, exif=exif)
    save(tmp_path / "keys" / "1.png", height=32, width=24)
    project = folder_project(tmp_path)
    assert project.photo[0].shape == project.drawings[1].shape == (3, 32, 24)


def test_a_folder_that_is_no_project_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="nowhere' does not exist"):
        folder_project(tmp_path / "nowhere")
    with pytest.raises(AnimegenError, match="has no clip: it has neither 'frames' nor a video"):
        folder_project(tmp_path)
    save(tmp_path / "frames" / "0.png")
    with pytest.raises(AnimegenError, match="no drawings in"):
        folder_project(tmp_path)


def test_range_resize_and_channels(tmp_path: Path) -> None:
    root = small_project(tmp_path, keys=(3,))
    save(root / "keys" / "003.png", height=48, width=64)
    (root / "project.yaml").write_text("range: [2, 5]\nresize: true\n")
    project = folder_project(root)
    assert project.names == ["002", "003", "004"]
    assert project.keys == [1]
    assert project.drawings[1].shape == (3, 24, 32)
    (root / "project.yaml").write_text("range: [2, 9]\nresize: true\n")
    assert "range [2, 9] does not fit a clip of 5 frames" in inspect(root)[1].problems[0]
    for n in range(5):
        save(root / "guides" / "depth" / f"{n:03d}.png", mode="L")
    problems = inspect(root, {"range": None, "guides": {"depth": 3}})[1].problems
    assert problems == ["the guide 'depth' has 1 channels, not 3: export it again."]


def test_a_video_is_a_clip(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (40 * n, 10, 10)) for n in range(4)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=100)
    save(tmp_path / "keys" / "3.png")
    project = folder_project(tmp_path)
    assert len(project) == 4
    assert project.names == ["000001", "000002", "000003", "000004"]  # as FFmpeg numbers images
    assert project.keys == [2]
    assert project.photo[2].shape == (3, 24, 32)
    assert abs(int(project.photo[2][0].float().mean()) - 80) < 8


def other_layout(root: Path, gen: bool) -> Path:
    train = root / "clip_train"
    for n in (1, 5):
        save(train / "input" / f"{n:03d}.png", seed=n)
        save(train / "output" / f"{n:03d}.jpg", seed=50 + n)
        (train / "output" / f"{n:03d}.jpg").rename(train / "output" / f"{n:03d}.png")  # as they come
        white(train / "mask" / f"{n:03d}.png", (0, 0, 32, 24))
        save(train / "tracking" / f"{n:03d}.png", seed=70 + n)
    if gen:
        for n in range(8):
            save(root / "clip_gen" / "input_filtered" / f"{n:03d}.png", seed=n)
            save(root / "clip_gen" / "tracking" / f"{n:03d}.png", seed=70 + n)
            (root / "clip_gen" / "flow_fwd").mkdir(parents=True, exist_ok=True)
    return train


def test_the_layout_with_a_clip_is_imported(tmp_path: Path) -> None:
    other_layout(tmp_path, gen=True)
    place = import_layout(tmp_path, tmp_path / "mine")
    project = folder_project(place)
    assert len(project) == 8
    assert [project.names[n] for n in project.keys] == ["001", "005"]
    assert sorted(f.name for f in (place / "keys").iterdir()) == ["001.jpg", "005.jpg"], "the suffix tells the truth"
    assert list(project.guides) == ["tracking"]
    assert torch.equal(project.photo[1], read_image(tmp_path / "clip_gen" / "input_filtered" / "001.png"))
    assert set(project.masks) == {1, 5}
    with pytest.raises(AnimegenError, match="exists: choose another output"):
        import_layout(tmp_path, place)


def test_the_layout_without_a_clip_is_imported(tmp_path: Path) -> None:
    project = folder_project(import_layout(other_layout(tmp_path, gen=False), tmp_path / "mine"))
    assert project.names == ["001", "005"]
    assert project.keys == [0, 1]
    assert list(project.guides) == ["tracking"]


def test_what_is_no_layout_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="has 0 folders <name>_train"):
        import_layout(tmp_path, tmp_path / "mine")
    train = other_layout(tmp_path, gen=False)
    save(train / "output" / "009.png")
    with pytest.raises(AnimegenError, match="the drawing '009' has no frame"):
        import_layout(train, tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip_train"]


def scenes(*lengths: int) -> torch.Tensor:
    """A clip of shots that have nothing in common, each with a little noise."""
    torch.manual_seed(0)
    frames = []
    for number, length in enumerate(lengths):
        picture = torch.rand(3, 32, 48) * 60 + 60 * number
        frames += [(picture + 2 * torch.rand(3, 32, 48)).to(torch.uint8) for _ in range(length)]
    return torch.stack(frames)


def test_the_next_key_lies_in_the_longest_shot_without_one() -> None:
    clip = scenes(8, 4, 9)
    found = suggest_keys(clip, keys=[2], count=2)
    assert 12 <= found[0].number < 21
    assert 8 <= found[1].number < 12
    assert 1 > found[0].left > found[1].left > 0
    fresh = suggest_keys(clip, count=3)
    assert sorted(int(s.number >= 8) + int(s.number >= 12) for s in fresh) == [0, 1, 2]
    assert suggest_keys(clip[:3], keys=[0, 1], count=5)[0].number == 2
    with pytest.raises(AnimegenError, match="keys from 0 to 20"):
        suggest_keys(clip, keys=[30])


def test_the_generated_project_has_its_truth() -> None:
    project = toonworld_project("dusk", keys=2, frames=8, size=48)
    assert project.keys == [2, 6]
    assert project.scored == [0, 1, 3, 4, 5, 7]
    assert project.size == (48, 48)
    assert project.scene is not None
    assert torch.equal(project.drawings[2], project.answer(2))
    expected = torch.from_numpy(project.scene.anime(5, "dusk")).permute(2, 0, 1)
    assert torch.equal(project.answer(5), expected)
    assert toonworld_project(frames=8, size=48, at=[0, 7]).keys == [0, 7]
    with pytest.raises(AnimegenError, match="cannot have 8 key frames"):
        toonworld_project(keys=8, frames=8, size=48)
    with pytest.raises(AnimegenError, match="at least one key frame for training"):
        KeyframeProject(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {0: torch.zeros(3, 8, 8)}, held=[0])


def test_the_verb_checks_suggests_filters_and_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other_layout(tmp_path, gen=True)
    mine = tmp_path / "mine"
    assert run_verb(prepare.main, f"import={tmp_path}/clip_train", f"output={mine}") == 0
    assert "ready to train" in capsys.readouterr().out
    assert run_verb(prepare.main, f"suggest_keys={mine}", "count=2") == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) >= 3
    assert "Paint these frames" in told[2]
    suggested = [line.split()[0] for line in told[:2]]
    assert set(suggested) <= {f"{n:03d}.png" for n in range(8)} - {"001.png", "005.png"}
    for name in suggested:
        assert torch.equal(read_image(mine / "to_paint" / name), read_image(mine / "frames" / name))
    # Before the first painting, too; a frame that was painted over stays.
    write_image(mine / "to_paint" / suggested[0], torch.zeros(3, 24, 32, dtype=torch.uint8))
    (mine / "keys").rename(tmp_path / "kept")
    assert run_verb(prepare.main, f"suggest_keys={mine}", "count=8") == 0
    assert len(list((mine / "to_paint").iterdir())) == 8
    assert int(read_image(mine / "to_paint" / suggested[0]).max()) == 0
    (tmp_path / "kept").rename(mine / "keys")
    assert run_verb(prepare.main, f"filter={mine}", f"output={tmp_path}/clean", "radius=1") == 0
    assert sorted(f.name for f in (tmp_path / "clean").iterdir()) == [f"{n:03d}.png" for n in range(8)]
    write_image(mine / "keys" / "999.png", torch.zeros(3, 24, 32, dtype=torch.uint8))
    capsys.readouterr()
    assert run_verb(prepare.main, f"check={mine}") == 1
    assert "the drawing '999.png' matches no frame" in capsys.readouterr().out
    assert "1 problem" in refused(capsys, run_verb(prepare.main, f"suggest_keys={mine}"))
    assert "needs one of the keys input, toonworld, check" in refused(capsys, run_verb(prepare.main))
    assert "filter= needs output=" in refused(capsys, run_verb(prepare.main, f"filter={mine}"))


def test_a_drawing_with_the_name_of_another_frame_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(seed=0, split="test", index=0, size=96, frames=40)
    for n in range(40):
        write_image(tmp_path / "frames" / f"{n + 1:03d}.png", torch.from_numpy(scene.photo(n)).permute(2, 0, 1))
    drawing = {n: torch.from_numpy(scene.anime(n, "print")).permute(2, 0, 1) for n in (5, 20, 34)}
    write_image(tmp_path / "keys" / "006.png", drawing[5])
    write_image(tmp_path / "keys" / "035.png", drawing[34])
    assert inspect(tmp_path)[1].doubts == []
    write_image(tmp_path / "keys" / "010.png", drawing[20])  # it is 021
    project, report = inspect(tmp_path)
    assert project is not None
    (doubt,) = report.doubts
    assert "the drawing '010' fits the frame '021' better than the one of its name" in doubt
    assert run_verb(prepare.main, f"check={tmp_path}") == 0
    assert "ready to train, if these drawings have the right names" in capsys.readouterr().out
    folder_project(tmp_path)
    assert "fits the frame '021'" in caplog.text


def test_another_drawing_of_the_same_frame_is_no_doubt() -> None:
    clip = torch.randint(256, (5, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = torch.nn.functional.avg_pool2d(clip.float(), 5, 1, 2).to(torch.uint8) * 2
    names = [str(n) for n in range(5)]
    assert misplaced(clip, {2: 255 - clip[2], 3: clip[3] // 2}, names) == []
    assert misplaced(clip, {2: torch.full_like(clip[0], 90)}, names) == []  # without any edge
    (sentence,) = misplaced(clip, {1: 255 - clip[4]}, names)
    assert "'1' fits the frame '4'" in sentence
