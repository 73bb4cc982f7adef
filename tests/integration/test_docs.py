"""The documentation: every command composes, every link leads somewhere; those of docs/ run (long tests).

Blocks of ``sh`` and ``python`` run; blocks of ``bash`` (long trainings, placeholders, other machines) compose only.
"""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from PIL import Image

import animegen.models
from animegen.cli import compare, evaluate, export, interpolate, listing, prepare, stylize
from animegen.cli import main as cli
from animegen.cli import train as train_verb
from animegen.config import trust
from animegen.config.compose import compose_config
from animegen.config.options import Options, read
from animegen.launch import jobs
from animegen.launch.sweep import is_sweep, plan_sweep
from animegen.toonworld import Scene
from tests.support import TINY, run_verb, tiny, train
from tests.video_support import write_film

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
OTHERS = ("*.md", "animegen/models/*/README.md", "experiments/**/README.md")
ALL_PAGES = [*PAGES, *sorted(path.relative_to(ROOT).as_posix() for glob in OTHERS for path in ROOT.glob(glob))]
VERBS = {
    **{"train": train_verb, "compare": compare, "eval": evaluate, "export": export, "interpolate": interpolate},
    **{"list": listing, "prepare": prepare, "stylize": stylize},
}
FENCE = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def test_every_recorded_experiment_is_in_the_table() -> None:
    folder = ROOT / "experiments"
    recorded = {path.parent.name for path in folder.glob("*/README.md")}
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)/README\.md\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert recorded == {name for name, _ in listed}
    assert all(name == link for name, link in listed)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = re.findall(r"docs/\w+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == PAGES


def test_the_map_of_packages_has_the_checked_order() -> None:
    (layers, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (`.+?`) \|", text[text.index("| package |") : text.index("| job |")], re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)", row)] == layers["layers"]


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return (language, file name, text) of the fenced blocks of a page."""
    return FENCE.findall((ROOT / page).read_text())


def commands(page: str) -> list[list[str]]:
    """Return the words after ``animegen`` of all commands of a page, in fenced or indented blocks."""
    text = re.sub(r"\\\n *", "", (ROOT / page).read_text())
    lines = [
        line for language, _, block in FENCE.findall(text) if language in ("sh", "bash") for line in block.splitlines()
    ]
    lines += re.findall(r"^    (animegen .*)", FENCE.sub("", text), re.MULTILINE)
    first = [re.sub(r"<(\w+)\|[^>]+>", r"\1", line) for line in lines if "..." not in line]
    concrete = [re.sub(r"<[^>]+>", "1", line) for line in first]
    words = [shlex.split(line, comments=True) for line in concrete if line.startswith(("animegen ", "torchrun "))]
    return [line[line.index("animegen") + 1 :] for line in words]


def is_run(words: Sequence[str]) -> bool:
    """Tell whether these are the words of one run that is composed from nothing but themselves."""
    special = ("study=", "resume=", "rerun=", "resume_sweep=")
    return words[0] == "train" and not any(word.startswith(special) for word in words)


def kinds_of(options: type[Options]) -> Iterator[type[Options]]:
    """Yield the classes derived from a class of options."""
    for kind in options.__subclasses__():
        yield kind
        yield from kinds_of(kind)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_command_of_a_page_composes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("animegen.launch.grid.check_launcher", lambda name: None)
    for words in commands(page):
        importlib.import_module(cli.COMMANDS[words[0]].module)
        composed = words[0] in ("train", "eval", "bench")  # their words go to Hydra, too
        if not composed and not any(word.startswith("-") for word in words):
            for options in {kind for kind in kinds_of(Options) if kind.command == words[0]}:
                read(options, words[1:])
        if "experiment=sketch/first" in words or not is_run(words):
            continue
        if is_sweep(words):
            plan_sweep(words[1:])
            continue
        compose_config("train", [word for word in words[1:] if not word.startswith(("-", "job", "hydra"))])


@pytest.mark.parametrize("page", ALL_PAGES)
def test_pages_are_readable_and_their_links_lead_somewhere(page: str) -> None:
    lines = (ROOT / page).read_text().splitlines()
    if page.startswith("docs/") or page == "README.md":
        assert len(lines) < (180 if page == "README.md" else 130)
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    ", "#")) and "](" not in line]
    assert [line for line in prose if len(line) > 120] == []
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)", text):
        link = "".join(target)
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {
        name: train(f"experiment={experiment}", "train_steps=1", output=folder / name)
        for name, experiment in {"stylist": "toy/quickstart", "between": "interpolation/quickstart"}.items()
    }


def material(folder: Path, trained: dict[str, Path]) -> None:
    """Lay out the material of the pages: photos, stills, videos, a clip with painted frames, two runs."""
    scenes = [Scene(seed=0, split="train", index=n, size=64) for n in range(4)]
    for number, scene in enumerate(scenes):
        for name, picture in (("photos", scene.photo(0)), ("stills", scene.anime(0, "meadow"))):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    (folder / "videos").mkdir()
    (folder / "my_clip" / "keys").mkdir(parents=True)
    for path in ("video.mp4", "videos/video.mp4", "my_clip/clip.mp4"):
        shown = scenes[: 1 if "clip" in path else 2]
        frames = [torch.from_numpy(scene.photo(t)).permute(2, 0, 1) for scene in shown for t in range(10)]
        write_film(folder / path, frames)
    for number in (2, 7):
        Image.fromarray(scenes[0].anime(number, "meadow")).save(folder / "my_clip" / "keys" / f"{number:03}.png")
    (folder / "runs").mkdir()
    for name, run in trained.items():
        (folder / "runs" / name).symlink_to(run)


def smaller(words: list[str]) -> list[str]:
    """Return the words of a command at a size that a test can afford."""
    if words[0] != "train":
        return words
    if any(word.startswith("study=") for word in words):
        small = ("train_steps=1", "val_every=1", "data.scenes=2", "data.val_scenes=1", "data.test_scenes=2")
        return [*words, *small, "device=cpu"]
    if not is_run(words) or "--cfg" in words:
        return words
    given = [word for word in words[1:] if word != "-m"]
    more = [word for word in tiny(*[w for w in given if "," not in w]) if word not in given]
    more = [word for word in more if word != "evaluate=false"]
    return [*(["train", "-m"] if "-m" in words else ["train"]), *more, *given, "train_steps=1"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(
    page: str, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    material(tmp_path, trained)

    def run_all(tasks: Sequence[jobs.Task], *_: object) -> list[jobs.Failure]:
        """Run in this process what would be processes."""
        for task in tasks:
            words = list(task.command[5:])
            HydraConfig.instance().cfg = None
            assert run_verb(train_verb.main, *words) == 0, words
        return []

    monkeypatch.setattr(jobs, "run_all", run_all)
    searched: list[str] = []
    for language, name, text in blocks(page):
        if name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
            if name.startswith("animegen"):
                monkeypatch.setattr(
                    animegen.models, "__path__", [*animegen.models.__path__, str(tmp_path / "animegen" / "models")]
                )
            else:
                # In a clone these files lie in conf/, so that they belong to the installed configuration.
                named = frozenset(re.findall(r"animegen\.models\.[\w.]+", text))
                monkeypatch.setitem(trust.installed(), "model", trust.installed()["model"] | named)
                searched = [f"hydra.searchpath=['file://{tmp_path / 'conf'}']"]
        elif language == "python":
            exec(compile(text, page, "exec"), {})
        elif language == "sh":
            for line in filter(None, text.splitlines()):
                words = shlex.split(line)[1:]
                own = bool(searched) and words[0] == "train"
                words = [*words, *searched] if own else smaller(words)
                if own and is_run(words):
                    words += [*TINY, "data.scenes=4", "data.val_scenes=1", "train_steps=1"]
                HydraConfig.instance().cfg = None
                code = run_verb(VERBS[words[0]].main, *words[1:])
                assert code == 0, line
