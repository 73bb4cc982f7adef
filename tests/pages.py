"""The commands of README.md, the Makefile and docs/: found, made small, and run in a scratch folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from PIL import Image

import animegen.models
from animegen.cli import main as cli
from animegen.cli import train as train_verb
from animegen.config import trust
from animegen.launch import jobs
from animegen.toonworld import Scene
from tests.support import TINY, run_verb, tiny
from tests.unit.models.ports import weights
from tests.video_support import write_film

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
FENCE = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

#: What a block of ``bash`` may hold: lines that need a network, a GPU, other machines, a server, or the clone itself.
NOT_RUN = re.compile(
    r"^(git|make|pip|source|tensorboard|torchrun) |^animegen web|^animegen completion"
    r"|device=cuda|hydra/launcher=|precision=bf16 device"
)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return (language, file name, text) of the fenced blocks of a page."""
    return FENCE.findall((ROOT / page).read_text())


def shell_lines(text: str) -> list[str]:
    """Return the lines of a block, with continued ones joined."""
    return [line for line in re.sub(r"\\\n *", "", text).splitlines() if line and not line.startswith("#")]


def inline_commands(page: str) -> list[str]:
    """Return the commands with keys in the text and the tables of a page, without those that hold placeholders."""
    text = FENCE.sub("", (ROOT / page).read_text())
    found = re.findall(r"`(animegen \w+(?: [^`]*)?)`", re.sub(r"\n *", " ", text))
    return [line for line in found if "=" in line and not re.search(r"<|\.\.\.", line)]


def commands_of_make() -> list[str]:
    """Return the commands of the targets ``quickstart`` and ``demo`` of the Makefile, with variables filled in."""
    text = (ROOT / "Makefile").read_text()
    recipes = dict(re.findall(r"^DEMO_(\w+) +:= (.+)$", text, re.MULTILINE))
    families = re.findall(r"^FAMILIES +:= (.+)$", text, re.MULTILINE)[0].split()
    text = text.replace("$(FAMILIES:%=$(RUNS)/demo/%)", " ".join(f"runs/demo/{name}" for name in families))
    targets = re.split(r"^(?=[a-z-]+%?:)", text.replace("$(RUNS)", "runs"), flags=re.MULTILINE)
    found = {target.split(":")[0]: re.findall(r"\$\(BIN\)/(animegen [^>\n]*)", target) for target in targets}
    (training,) = found["demo-%"]
    trainings = [training.replace("$(DEMO_$*)", recipes[name]).replace("$*", name) for name in families]
    first, *rest = found["demo"]
    return [*found["quickstart"], first, *trainings, *rest]


def is_run(words: Sequence[str]) -> bool:
    """Tell whether these are the words of one run that is composed from nothing but themselves."""
    special = ("study=", "resume=", "rerun=", "resume_sweep=")
    return words[0] == "train" and not any(word.startswith(special) for word in words)


def material(folder: Path) -> None:
    """Lay out what the pages name: photos, stills, videos, a clip with two painted frames, weights of a port."""
    scenes = [Scene(seed=0, split="train", index=n, size=64) for n in range(4)]
    for number, scene in enumerate(scenes):
        for name, image in (("photos", scene.photo(0)), ("stills", scene.anime(0, "meadow"))):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    for name, frame in (("a.png", 0), ("b.png", 4), ("c.png", 8)):
        Image.fromarray(scenes[0].anime(frame, "meadow")).save(folder / name)
    Image.fromarray(scenes[1].photo(0)).save(folder / "photo.jpg")
    Image.fromarray(scenes[1].anime(0, "meadow")).save(folder / "still.jpg")
    (folder / "videos").mkdir()
    (folder / "my_clip" / "keys").mkdir(parents=True)
    more = [Scene(seed=1, split="train", index=n, size=64) for n in range(6)]
    shots = {"video.mp4": scenes[:2], "my_clip/clip.mp4": scenes[:1]}
    shots |= {f"videos/{n}.mp4": more[2 * n : 2 * n + 2] for n in range(3)}  # one for each part of a data set
    for path, shown in shots.items():
        frames = [torch.from_numpy(scene.photo(t)).permute(2, 0, 1) for scene in shown for t in range(10)]
        write_film(folder / path, frames)
    for number in (2, 7):
        Image.fromarray(scenes[0].anime(number, "meadow")).save(folder / "my_clip" / "keys" / f"{number:03}.png")
    torch.save(weights("animegan2-pytorch"), folder / "generator.pt")


def smaller(words: list[str]) -> list[str]:
    """Return the words of a command at a size that a test can afford."""
    given = {word.split("=", 1)[0] for word in words}

    def unless_given(*more: str) -> list[str]:
        return [*words, *(word for word in more if word.split("=", 1)[0] not in given)]

    if words[0] == "eval":
        sizes = ("clips=1", "frames=4", "size=32", "drift_frames=8", "train_scenes=2", "intervals=[1]")
        steady = "benchmark=clips" in words
        return unless_given("samples=2", *(f"benchmark.{size}" for size in sizes if steady))
    if words[0] == "bench":
        return unless_given("seconds=0.2", *([] if given & {"data", "startup"} else ["size=tiny"]))
    if words[0] != "train" or "--cfg" in words:
        return words
    if "study" in given:
        small = ("train_steps=1", "val_every=1", "data.scenes=2", "data.val_scenes=1", "data.test_scenes=2")
        return unless_given(*small, "device=cpu")
    if not is_run(words):
        return [re.sub(r"^train_steps=\d+$", "train_steps=2", word) for word in words]
    chosen = [word for word in words[1:] if word != "-m"]
    more = [word for word in tiny(*[w for w in chosen if "," not in w]) if word not in chosen]
    more = [word for word in more if word != "evaluate=false"]
    both = "experiment=ganime/quickstart" in words  # a step for each of its stages
    steps = ["train_steps=3", "model.tokenizer_steps=1"] if both else ["train_steps=1"]
    return [*(["train", "-m"] if "-m" in words else ["train"]), *more, *chosen, *steps]


def run(line: str, *more: str, small: bool = True) -> None:
    """Run a command of a page in this process, small; fail unless it ends with exit code 0."""
    words = shlex.split(line, comments=True)[1:]
    words = [*(smaller(words) if small else words), *more]
    HydraConfig.instance().cfg = None
    assert run_verb(cli.main, *words) == 0, line


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the material of the pages, which is the current one; sweeps and studies run in this process."""

    def run_all(tasks: Sequence[jobs.Task], *_: object) -> list[jobs.Failure]:
        for task in tasks:
            HydraConfig.instance().cfg = None
            assert run_verb(train_verb.main, *task.command[5:]) == 0, task.command
        return []

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.chdir(tmp_path)
    material(tmp_path)
    return tmp_path


def run_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of ``sh`` and ``python`` of a page in its order; write those that have a file name."""
    searched: list[str] = []
    for language, name, text in blocks(page):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
            if name.startswith("animegen"):
                packages = [*animegen.models.__path__, str(folder / "animegen" / "models")]
                monkeypatch.setattr(animegen.models, "__path__", packages)
            else:
                # In a clone these files lie in conf/, so that they belong to the installed configuration.
                named = frozenset(re.findall(r"animegen\.models\.[\w.]+", text))
                monkeypatch.setitem(trust.installed(), "model", trust.installed()["model"] | named)
                searched = [f"hydra.searchpath=['file://{folder / 'conf'}']"]
        elif language == "python":
            exec(compile(text, page, "exec"), {})
        elif language == "sh":
            for line in shell_lines(text):
                own = bool(searched) and line.startswith("animegen train")
                size = [*TINY, "data.scenes=4", "data.val_scenes=1", "train_steps=1"]
                run(line, *searched * own, *(size if own and "resume=" not in line else []), small=not own)


def kinds_of(options: type) -> Iterator[type]:
    """Yield the classes derived from a class of options."""
    for kind in options.__subclasses__():
        yield kind
        yield from kinds_of(kind)
