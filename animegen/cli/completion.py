"""``animegen completion``: scripts that let bash and zsh complete commands, keys, options and paths."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Literal, get_args, get_origin

from animegen.cli.command import command, wants_help
from animegen.cli.main import COMMANDS, run
from animegen.config.looks import looks
from animegen.config.options import Key, Options, keys_of, option
from animegen.config.values import alternatives, element, is_list

#: Options classes of the commands.
DECLARED = {
    "train": "animegen.config.schema:TrainSchema",
    "eval": "animegen.config.schema:EvalSchema",
    "bench": "animegen.config.schema:BenchSchema",
    "compare": "animegen.reports.options:CompareOptions",
    "stylize": "animegen.inference.options:StylizeOptions",
    "interpolate": "animegen.inference.options:InterpolateOptions",
    "generate": "animegen.inference.options:GenerateOptions",
    "web": "animegen.web.options:WebOptions",
    "export": "animegen.inference.options:ExportOptions",
    "import": "animegen.inference.options:ImportOptions",
    "prepare": "animegen.curation.options:PrepareOptions",
    "list": "animegen.cli.listing:ListOptions",
    "doctor": "animegen.cli.doctor:DoctorOptions",
    "completion": "animegen.cli.completion:CompletionOptions",
}
#: Configuration groups of the commands that Hydra composes.
GROUPS: dict[str, tuple[str, ...]] = {
    "train": (),  # all of them
    "eval": ("benchmark", "features", "data", "size"),
    "bench": ("model", "size", "features", "precision", "experiment", "ablation", "data"),
    "import": ("model",),
}
#: The line that requests file names from the shell.
FILES = ":files"

BASH = r"""# bash completion of animegen: put  source <(animegen completion bash)  into ~/.bashrc
_animegen() {
    local IFS=$'\n' word last head line i joined=
    local -a words=()
    # Bash cuts words at = and :, which belong to ours.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && ( -n $joined || $word == [=:] ) ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        joined=
        [[ $word == [=:] ]] && joined=1
    done
    last=${words[${#words[@]}-1]}
    head=${last%"${last##*[=:]}"}
    COMPREPLY=()
    for line in $("${COMP_WORDS[0]}" completion words "${words[@]}" 2>/dev/null); do
        if [[ $line == :files ]]; then
            compopt -o filenames 2>/dev/null
            COMPREPLY+=($(compgen -f -- "${last#*=}"))
        else
            [[ $line == *= || $line == *, ]] && compopt -o nospace 2>/dev/null
            COMPREPLY+=("${line#"$head"}")
        fi
    done
}
complete -F _animegen animegen
"""

ZSH = r"""#compdef animegen
# zsh completion of animegen: put  source <(animegen completion zsh)  into ~/.zshrc, after compinit
_animegen() {
    local line
    local -a found open whole
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $found; do
        case $line in
            :files) compset -P '*='; _files; return ;;
            *=) open+=("$line") ;;
            *) whole+=("$line") ;;
        esac
    done
    (( $#open )) && compadd -S '' -- $open
    (( $#whole )) && compadd -- $whole
}
compdef _animegen animegen
"""


@dataclass
class CompletionOptions(Options):
    """Print a script that lets a shell complete commands, keys, options and paths.

    For bash, put this line into ~/.bashrc: source <(animegen completion bash). For zsh, put this one into ~/.zshrc,
    after compinit: source <(animegen completion zsh).
    """

    command: ClassVar[str] = "completion"
    examples: ClassVar[Sequence[str]] = ("bash", "zsh")

    shell: Literal["bash", "zsh"] = option(help="the shell", positional=True)


@command(CompletionOptions)
def _print_script(options: CompletionOptions) -> None:
    print(BASH if options.shell == "bash" else ZSH, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the completion script of a shell, or, for ``words ...``, the completions of the last of these words."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] != ["words"] or (len(words) == 1 and wants_help(words)):
        return _print_script(words)

    def job() -> None:
        for line in candidates(words[1:] or [""]):
            print(line)

    return run(job)


def candidates(words: Sequence[str]) -> list[str]:
    """Return the completions of the last word of a command line; :data:`FILES` represents file names.

    Args:
        words: arguments after ``animegen``, up to the cursor.
    """
    last = words[-1]
    if len(words) == 1:
        return [name for name in COMMANDS if name.startswith(last)]
    name = words[0]
    if name not in DECLARED:
        return []
    module, _, attribute = DECLARED[name].partition(":")
    keys = keys_of(getattr(importlib.import_module(module), attribute))
    groups = _groups(name)
    head, equals, value = last.partition("=")
    if not equals:
        return [word for word in _first_words(keys, groups, words) if word == FILES or word.startswith(last)]
    key = next((key for key in keys if key.name == head), None)
    if any(each.name == "look" for each in keys):
        groups["look"] = [each for each, look in looks().items() if name in look.commands]
    values = groups.get(head) or (_values(key) if key is not None else [])
    if key is not None and key.declaration.path:
        return [FILES]
    # Of a list, the element at the cursor.
    done = value[: max(value.rfind("["), value.rfind(",")) + 1]
    return [f"{head}={done}{each}" for each in values if each.startswith(value[len(done) :])]


def _first_words(keys: Sequence[Key], groups: dict[str, list[str]], words: Sequence[str]) -> Iterator[str]:
    """Yield the completions of a word without an equals sign."""
    positional = [key for key in keys if key.declaration.positional]
    place = sum("=" not in word for word in words[1:]) - 1
    if positional:
        key = positional[min(place, len(positional) - 1)]
        yield from [FILES] if key.declaration.path else _values(key)
    for name in dict.fromkeys([*(key.name for key in keys if not key.declaration.positional), *groups]):
        yield f"{name}="
    yield "--help"


def _values(key: Key) -> list[str]:
    kind: Any = element(key.kind) if is_list(key.kind) else key.kind
    found: list[str] = []
    for each in alternatives(kind):
        if each is bool:
            found += ["true", "false"]
        elif get_origin(each) is Literal:
            found += get_args(each)
        elif isinstance(each, type) and issubclass(each, Enum):
            found += each.__members__
    return found


def _groups(name: str) -> dict[str, list[str]]:
    """Return group -> options of a command that Hydra composes."""
    if name not in GROUPS:
        return {}
    from animegen.config.groups import list_options

    found: dict[str, list[str]] = {}
    for each in list_options():
        group, _, value = each.partition("/")
        if not GROUPS[name] or group in GROUPS[name]:
            found.setdefault(group, []).append(value)
    return found
