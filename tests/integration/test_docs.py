"""The documentation: every command composes, every link leads somewhere, and the pages know each other."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib

import pytest

from animegen.cli import main as cli
from animegen.config.compose import compose_config
from animegen.config.options import Options, read
from animegen.launch.sweep import is_sweep, plan_sweep
from tests.pages import (
    FENCE,
    NOT_RUN,
    PAGES,
    ROOT,
    blocks,
    commands_of_make,
    inline_commands,
    is_run,
    kinds_of,
    shell_lines,
)

OTHERS = ("*.md", "animegen/models/*/README.md", "experiments/**/README.md")
ALL_PAGES = [*PAGES, *sorted(path.relative_to(ROOT).as_posix() for glob in OTHERS for path in ROOT.glob(glob))]


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


def commands(page: str) -> list[list[str]]:
    """Return the words after ``animegen`` of all commands of a page, in blocks or in the text."""
    text = re.sub(r"\\\n *", "", (ROOT / page).read_text())
    lines = [
        line for language, _, block in FENCE.findall(text) if language in ("sh", "bash") for line in block.splitlines()
    ]
    lines += re.findall(r"^    (animegen .*)", FENCE.sub("", text), re.MULTILINE)
    lines += [*inline_commands(page), *commands_of_make()] if page == "README.md" else []
    first = [re.sub(r"<(\w+)\|[^>]+>", r"\1", line) for line in lines if "..." not in line]
    concrete = [re.sub(r"<[^>]+>", "1", line) for line in first]
    words = [shlex.split(line, comments=True) for line in concrete if line.startswith(("animegen ", "torchrun "))]
    return [line[line.index("animegen") + 1 :] for line in words]


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_command_of_a_page_composes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("check_launcher", "check_search"):  # whether optional packages are installed
        monkeypatch.setattr(f"animegen.launch.grid.{check}", lambda words: None)
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


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_line_of_a_page_runs_or_has_a_reason(page: str) -> None:
    """Blocks of ``sh`` are run by the tests of commands, blocks of ``bash`` hold what a test cannot run."""
    for language, _, text in blocks(page):
        if language == "sh":
            assert [line for line in shell_lines(text) if not line.startswith("animegen ")] == []
        elif language == "bash":
            assert [line for line in shell_lines(text) if not NOT_RUN.search(line)] == []


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
