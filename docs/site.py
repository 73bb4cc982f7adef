"""MkDocs hook: the site mirrors the repository, so that relative links work in both.

Pages are the Markdown files of the repository under their own paths, with the images they show. Generated pages are one
per package, with the documentation of its modules, and one with the help texts of the commands. Families, experiments
and packages enter the navigation from the tree.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from animegen.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("*.md", "*.cff", "LICENSE", "docs/*.md", "docs/*.ipynb", "docs/images/*.*", "docs/images/photos/*"),
    *("animegen/models/*/README.md", "animegen/weights/*/README.md"),
    *(f"experiments/**/*.{ending}" for ending in ("md", "png", "jpg", "gif", "csv")),
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add families, experiment records and packages to the navigation, before the last entry."""
    assert config.nav is not None
    records = [{"Overview": "experiments/README.md"}, *_readmes("experiments")]
    config.nav[-1:-1] = [{"Families": _readmes("animegen/models")}, {"Experiments": records}, {"API": _api_tree()}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by those of the repository, and add the API pages."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "commands.md", content=_commands_text()))
    for package in _packages():
        files.append(File.generated(config, _api_page(package), content=_api_text(package)))
    return files


def _commands_text() -> str:
    """Return the page of all commands: what ``--help`` prints."""
    text = "# Commands\n\nThe output of `animegen <command> --help`.\n"
    for name, command in COMMANDS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main([name, "--help"])
        text += f"\n## {name}\n\n{command.about.capitalize()}.\n\n```text\n{printed.getvalue().strip()}\n```\n"
    return text


def _readmes(folder: str) -> list[Any]:
    return [
        {path.parent.name: path.relative_to(ROOT).as_posix()} for path in sorted((ROOT / folder).glob("*/README.md"))
    ]


def _packages() -> list[str]:
    """Return the dotted names of all packages, each before those inside it."""
    return sorted(".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "animegen").rglob("__init__.py"))


def _api_tree() -> list[Any]:
    return [{package: _api_page(package)} for package in _packages()]


def _api_page(package: str) -> str:
    return f"api/{package}.md"


def _api_text(package: str) -> str:
    """Return the page of a package: its docstring, then each of its modules."""
    modules = sorted(path.stem for path in ROOT.joinpath(*package.split(".")).glob("[!_]*.py"))
    head = f"::: {package}\n    options: {{heading_level: 1, members: false, show_root_full_path: true}}\n"
    return head + "".join(f"\n::: {package}.{name}\n" for name in modules)
