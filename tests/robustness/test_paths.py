"""Every path key of every command with every kind of path that cannot be used: one sentence, and nothing is opened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import animegen.curation.options
import animegen.inference.options
import animegen.reports.options  # noqa: F401  # they declare the keys
from animegen.config.options import Options, keys_of
from tests.robustness.support import run
from tests.support import refused, tiny
from tests.video_support import noise, write_film

#: Command -> words that are complete but for the key to be tried, and its path keys: inputs, then outputs.
COMMANDS = {
    "stylize": (["checkpoint={run}", "input={image}", "output={new}"], ["checkpoint", "input", "style"], ["output"]),
    "interpolate": (
        ["checkpoint={run}", "input={video}", "output={new}.mp4"],
        ["checkpoint", "input", "input=[{image}", "runs"],
        ["output"],
    ),
    "generate": (
        ["checkpoint={run}", "first={image}", "last={image}", "output={new}.mp4"],
        ["checkpoint", "first", "last", "keys=[{image}"],
        ["output"],
    ),
    "export": (["checkpoint={run}", "format=pt2", "output={new}.pt2"], ["checkpoint"], ["output"]),
    "import_weights": (["source={weights}", "output={new}.ckpt"], ["source"], ["output"]),
    "prepare": (["input={video}", "output={new}"], ["input"], ["output"]),
    "prepare check": (["check={folder}"], ["check", "clip"], []),
    "prepare suggest_keys": (["suggest_keys={folder}"], ["suggest_keys", "clip"], []),
    "prepare filter": (["filter={folder}", "output={new}"], ["filter", "clip"], ["output"]),
    "prepare import": (["import={folder}", "output={new}"], ["import"], ["output"]),
    "prepare toonworld": (["toonworld=photo", "shots=[3]", "side=32", "output={new}.mp4"], [], ["output"]),
    "bench": (["data=video", "seconds=0.1", "input={video}"], ["input"], ["output"]),
    "compare": (["{run}"], [""], ["output", "study=toy record"]),
    "evaluate": (
        ["checkpoint={run}", "device=cpu", "samples=1", "features=none"],
        [
            "checkpoint",
            "data=unpaired/folders data.anime={folder} data.photos",
            "benchmark=clips benchmark.video",
            "input",
        ],
        ["output"],
    ),
    "train": (
        ["experiment=toy/quickstart", "output={new}"],
        [
            "resume",
            "init",
            "data=unpaired/folders data.anime={folder} data.photos",
            "data=triplets/folders model=interpolation/vae data.folder",
            "data=clips/folders model=ganime/gpt6 data.folder",
            "data=clips/mnist model=ganime/gpt6 data.path",
            "data=unpaired/classic data.style=Some data.root",
            "data=keyframes/folder model=fewshot data.folder",
            "data=keyframes/filtered model=fewshot data.video",
            "features=vgg19 model=animegan/v2 features.weights",
        ],
        ["output"],
    ),
}
#: Keys that name folders which are only searched.
SEARCHED = {"runs"}
TRIED = [
    pytest.param(
        *(command, key, is_output),
        marks=[pytest.mark.slow] if command in ("train", "evaluate") and "." in key else [],
        id=f"{command} {key.split(' ')[-1]}",
    )
    for command, (_, inputs, outputs) in COMMANDS.items()
    for is_output, keys in ((False, inputs), (True, outputs))
    for key in keys
]


@pytest.fixture(scope="module")
def places(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("places")
    image, video, folder = root / "image.png", root / "video.mp4", root / "folder"
    Image.new("RGB", (32, 32), "red").save(image)
    write_film(video, [noise(n, 32, 32) for n in range(3)])
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), "blue").save(folder / f"{number}.png")
    run = shutil.copytree(toy, root / "run")
    return {"image": image, "video": video, "folder": folder, "run": run, "weights": run, "new": root / "new" / "name"}


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[dict[str, str]]:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = os.getcwd()
    os.chdir(tmp_path)  # names of sockets are short
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket")
    os.chdir(before)
    undecodable = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe")
    yield {
        "long part": f"{tmp_path}/{'x' * 300}",
        "long path": f"{tmp_path}{'/xxxxxxxxx' * 500}",
        "loop": f"{tmp_path}/loop",
        "below a loop": f"{tmp_path}/loop/a.png",
        "pipe": f"{tmp_path}/pipe",
        "socket": f"{tmp_path}/socket",
        "device": "/dev/zero",
        "empty": "",
        "no such file": undecodable,
    }
    listening.close()


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Interrupt a command that waits for a pipe."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("command", "key", "is_output"), TRIED)
def test_paths_that_cannot_be_used(
    command: str,
    key: str,
    is_output: bool,
    places: dict[str, Path],
    bad: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    base = [word.format(**places) for word in COMMANDS[command][0]]
    *before, name = key.format(**places).split(" ")
    listed = "=[" in name
    main = import_module(f"animegen.cli.{command.split(' ')[0]}").main
    if command == "train":
        base = tiny(*base)
    for kind, value in bad.items():
        if is_output and kind == "no such file":
            continue  # a name like any other
        suffix = Path(base[-1].partition("=")[2]).suffix if is_output and kind in ("long part", "long path") else ""
        word = f"{name},{value}]" if listed else f"{name}={value}{suffix}" if name else f"{value}{suffix}"
        mine = [w for w in base if w.partition("=")[0] != name.partition("=")[0]] if name else []
        for more in [[], ["overwrite=true"]] if is_output else [[]]:
            said = refused(capsys, main([*mine, *before, word, *more]))
            assert len(said) < 1200, f"{kind}: {said}"
    assert command == "train" or not places["new"].parent.exists()


#: Command and its words for a folder in which a named pipe lies among the files.
FOLDERS = {
    "stylize": ["checkpoint={run}", "input={folder}", "output={new}", "device=cpu"],
    "interpolate": ["checkpoint={between}", "input={folder}", "output={new}", "device=cpu"],
    "prepare": ["input={folder}", "output={new}"],
    "prepare check": ["check={folder}"],
    "compare": ["{folder}", "output={new}"],
    "evaluate": [
        *("checkpoint={run}", "device=cpu", "samples=1", "features=none"),
        *("data=paired/folders", "data.photos={folder}", "data.anime={folder}"),
    ],
    "train": [
        *tiny("experiment=toy/quickstart", "train_steps=1", "data=paired/folders", "data.photos=x", "data.anime=x"),
        "output={new}",
    ],
}


@pytest.mark.parametrize("command", FOLDERS)
def test_a_pipe_among_the_files_of_a_folder(
    command: str, places: dict[str, Path], between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(places["folder"], tmp_path / "folder")
    shutil.copy(places["video"], folder)
    (folder / "frames").mkdir()
    (folder / "run").mkdir()
    for name in ("3.png", "3.mp4", "frames/3.png", "run/run.json"):
        os.mkfifo(folder / name)
    names = {**places, "between": between, "folder": folder, "new": tmp_path / "new"}
    words = [word.format(**names).replace("=x", f"={folder}") for word in FOLDERS[command]]
    capsys.readouterr()
    code = import_module(f"animegen.cli.{command.split(' ')[0]}").main(words)
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    assert code in (0, 1, 2)
    assert "named pipe" in said or code == 0, said


#: Command, words, the output in a folder, and how many files it holds then.
UNDECODABLE = {
    "image": ("stylize", ["checkpoint={run}", "input={bad}/{name}.png"], "{name}.png"),
    "folder": ("stylize", ["checkpoint={run}", "input={bad}"], "{name}"),
    "video": ("stylize", ["checkpoint={run}", "input={bad}/{name}.mkv", "preset=ultrafast"], "{name}.mkv"),
    "export": ("export", ["checkpoint={run}", "format=pt2"], "{name}.pt2"),
    "clips": ("prepare", ["input={bad}"], "{name}"),
    "training": ("train", ["data=paired/folders", "data.photos='{bad}'", "data.anime='{bad}'"], "{name}"),
    "report": ("compare", ["{bad}/run"], "{name}"),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_names_that_are_not_valid_utf_8_are_used(case: str, places: dict[str, Path], tmp_path: Path) -> None:
    command, words, target = UNDECODABLE[case]
    name = os.fsdecode(b"\xff\xfe")
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(places["image"], folder / f"{name}.png")
    shutil.copy(places["image"], folder / "other.png")
    shutil.copy(places["video"], folder / f"{name}.mkv")
    (folder / "run").symlink_to(places["run"])
    output = tmp_path / "new" / target.format(name=name)
    mine = [word.format(run=places["run"], bad=folder, name=name) for word in words]
    if command == "train":
        mine = tiny("experiment=toy/quickstart", "train_steps=1", *mine)
    written = f"'{output}'" if command == "train" else output
    if command not in ("prepare", "compare", "train"):
        mine.append("device=cpu")
    # In processes of their own, whose streams are those of a user.
    ended = run(f"animegen.cli.{command}", [[*mine, f"output={written}"]], tmp_path / "log")
    assert ended.code == 0, ended.said
    assert output.exists()
    if command == "train":
        record = json.loads((output / "run.json").read_text())
        assert record["status"] in ("trained", "finished")
        assert str(folder) in json.dumps(record["config"], ensure_ascii=False)
        ended = run("animegen.cli.train", [[f"resume='{output}'", "train_steps=2"]], tmp_path / "log")
        assert ended.code == 0, ended.said


def test_every_declared_path_is_tried() -> None:
    every: list[type[Options]] = [*Options.__subclasses__()]
    for options in every:  # it grows
        every += options.__subclasses__()
    ours = [options for options in every if options.command and options.__module__.startswith("animegen.")]
    named = {options.command: options for options in ours if options.command != "web"}  # a server, and an extra
    assert {"stylize", "interpolate", "generate", "export", "import", "prepare", "compare"} <= named.keys()
    for command, options in named.items():
        module = {"import": "import_weights", "eval": "evaluate"}.get(command, command.split(" ")[0])
        tried = [keys for name, keys in COMMANDS.items() if name.split(" ")[0] == module]
        tried_keys = {key.split(" ")[-1].partition("=")[0] for _, *lists in tried for keys in lists for key in keys}
        declared = {"" if key.declaration.positional else key.name for key in keys_of(options) if key.declaration.path}
        assert declared - SEARCHED <= tried_keys, command
