"""Completion in a real bash and a real zsh, and what the last word of a command line can become."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from animegen.cli.completion import BASH, DECLARED, FILES, ZSH, candidates
from animegen.cli.main import COMMANDS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["stylize"]),
        (["stylize", "str"], ["strength="]),
        (["stylize", "device=c"], ["device=cpu", "device=cuda"]),
        (["stylize", "overwrite="], ["overwrite=true", "overwrite=false"]),
        (["stylize", "input=a"], [FILES]),
        (["train", "experiment=toy"], ["experiment=toy/quickstart"]),
        (["train", "precision="], ["precision=auto", "precision=bf16", "precision=fp32"]),
        (["train", "ablation=[animegan/no_tv,animegan/gan_h"], ["ablation=[animegan/no_tv,animegan/gan_hinge"]),
        (["eval", "benchmark=c"], ["benchmark=clips"]),
        (["prepare", "toonworld=p"], ["toonworld=photo", "toonworld=print"]),
        (["completion", "b"], ["bash"]),
        (["nothing", "a"], []),
        (["stylize", "strength="], []),
    ],
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert candidates(words) == expected


def test_every_command_declares_its_keys() -> None:
    assert DECLARED.keys() == COMMANDS.keys()


def lay_out(folder: Path) -> None:
    """Make a file to complete, and the command."""
    (folder / "picture one.png").touch()
    (folder / "animegen").write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(Path(__file__).parents[3]))} exec {sys.executable} -m animegen "$@"\n'
    )
    (folder / "animegen").chmod(0o755)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["animegen", "styl"], ["stylize"]),
        (["animegen", "stylize", "preci"], ["precision="]),
        (["animegen", "stylize", "precision", "=", "bf"], ["bf16"]),  # as bash cuts it
        (["animegen", "train", "experiment", "=", "toy/q"], ["toy/quickstart"]),
        (["animegen", "train", "debug", "="], ["fdr", "none", "overfit", "profiler"]),
        (["animegen", "stylize", "input", "=", "pic"], ["picture one.png"]),
        (["animegen", "compare", "pic"], ["picture one.png"]),
    ],
)
def test_bash(typed: list[str], expected: list[str], tmp_path: Path) -> None:
    lay_out(tmp_path)
    array = " ".join(map(shlex.quote, typed))
    script = f"{BASH}\nPATH={shlex.quote(str(tmp_path))}:$PATH\nCOMP_WORDS=({array})\nCOMP_CWORD={len(typed) - 1}\n"
    script += "_animegen\nprintf '%s\\n' \"${COMPREPLY[@]}\"\ncomplete -p animegen\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    lines = done.stdout.splitlines()
    assert lines == [*expected, "complete -F _animegen animegen"], done.stderr


#: Types into an interactive zsh, presses tab, and prints the line that the shell then holds. The marks that are waited
#: for are written in two parts: a slow shell echoes what is typed before it turns that off.
TYPE = r"""
zmodload zsh/zpty
zpty -b shell zsh -f -i
zpty -w shell 'PROMPT=; stty -echo; autoload -U compinit; compinit -u -D; source ./completion.zsh'
zpty -w shell 'show() { print -r -- "<<""<$BUFFER>"">>"; exit }; zle -N show; bindkey "^X" show; print REA""DY'
zpty -r -m shell output '*READY*'
zpty -w -n shell "$1"$'\t\x18'
zpty -r -m shell output '*>>>*'
print -r -- ${${output##*<<<}%%>>>*}
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("animegen styl", "animegen stylize "),
        ("animegen stylize preci", "animegen stylize precision="),
        ("animegen stylize precision=bf", "animegen stylize precision=bf16 "),
        ("animegen train experiment=toy/q", "animegen train experiment=toy/quickstart "),
        ("animegen stylize input=pic", r"animegen stylize input=picture\ one.png "),
        ("animegen compare pic", r"animegen compare picture\ one.png "),
    ],
)
def test_zsh(typed: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "completion.zsh").write_text(ZSH)
    (tmp_path / "type.zsh").write_text(TYPE)
    words = ["zsh", "-f", "type.zsh", typed]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.stdout.removesuffix("\n") == expected, done.stderr
