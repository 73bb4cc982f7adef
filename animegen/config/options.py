"""The keys of a command, declared once in a dataclass: types, defaults, ranges, help texts and examples.

A command declares a subclass of :class:`Options`. :func:`read` creates an instance from command-line arguments,
:func:`help_text` returns the text of ``--help``, and every instance is checked when it is created::

    @dataclass
    class ShrinkOptions(Options):
        '''Make images smaller.

        Notes for the reader of --help.
        '''

        command: ClassVar[str] = "shrink"
        examples: ClassVar[Sequence[str]] = ("input=photo.jpg factor=2",)

        input: str = option(help="an image or a folder", path=True)
        factor: int = option(2, "by which the sides are divided", minimum=1, maximum=64)

Arguments are ``key=value``; everything after the first equals sign is the value, without quotes except the shell's.
A list is written ``key=[a,b]``, or by repeating the key, which allows elements with commas.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from fractions import Fraction
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints

from animegen.config.meant import meant
from animegen.config.messages import refuse_empty
from animegen.config.values import (
    ANY,
    Range,
    accepts,
    alternatives,
    check,
    convert,
    describe,
    element,
    is_list,
    refusal,
    shown,
)
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import user_path

_KEY = re.compile(r"[A-Za-z_][\w.]*")
_NOUN = re.compile(r"^(an integer|a number|one of) ?(of )?")
_WIDTH = 80


@dataclass(frozen=True)
class Declaration:
    """Help text and constraints of a key.

    Attributes:
        help: short description.
        limits: range of the number, or of each number of a list.
        path: the value names a file or a folder.
        positional: the value is given without a key.
        section: heading under which ``--help`` shows the key.
        name: the key, where that cannot be the name of an attribute.
    """

    help: str = ""
    limits: Range = ANY
    path: bool = False
    positional: bool = False
    section: str = ""
    name: str = ""


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    also: tuple[float, ...] = (),
    path: bool = False,
    positional: bool = False,
    section: str = "",
    name: str = "",
) -> Any:
    """Declare a key of a command; see :class:`Declaration`. Without a default the key must be given."""
    declaration = Declaration(help, Range(minimum, maximum, above, also), path, positional, section, name)
    settings: dict[str, Any] = {"metadata": {"option": declaration}, "kw_only": True}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, **settings)
    return dataclasses.field(default=default, **settings)


@dataclass(frozen=True)
class Key:
    """A key of a command, with its declaration in the dataclass."""

    name: str
    attribute: str
    kind: Any
    default: Any
    declaration: Declaration

    @property
    def required(self) -> bool:
        """Whether the key is required."""
        return self.default is MISSING

    def check(self, value: Any) -> None:
        """Raise :class:`AnimegenError` for a value of the wrong type, or outside of the range."""
        check(self.name, value, self.kind, self.declaration.limits)


T = TypeVar("T", bound="Options")


@dataclass
class Options:
    """Base of the options of all commands: an instance holds valid values only."""

    command: ClassVar[str] = ""
    examples: ClassVar[Sequence[str]] = ()

    def __post_init__(self) -> None:
        for key in keys_of(type(self)):
            key.check(getattr(self, key.attribute))

    def part(self, options: type[T]) -> T:
        """Return the values that belong to one of the base classes."""
        return options(**{field.name: getattr(self, field.name) for field in dataclasses.fields(options)})


def keys_of(options: type) -> tuple[Key, ...]:
    """Return the keys of a command: the required ones, its own, and shared ones."""
    kinds = get_type_hints(options)
    keys = [
        Key(
            name=field.metadata["option"].name or field.name,
            attribute=field.name,
            kind=kinds[field.name],
            default=field.default if field.default_factory is MISSING else field.default_factory(),
            declaration=field.metadata["option"],
        )
        for field in dataclasses.fields(options)
        if "option" in field.metadata
    ]
    order = [name for each in options.__mro__ for name in vars(each).get("__annotations__", {})]
    others = sorted((key for key in keys if not key.required), key=lambda key: order.index(key.attribute))
    return (*(key for key in keys if key.required), *others)


# --- the command line -----------------------------------------------------------------------------------------


def read(options: type[T], words: Iterable[str]) -> T:
    """Return the options given by the arguments of a command line.

    Raises:
        AnimegenError: for an unknown key, a missing one, and a value that is empty, of the wrong type or out of range.
    """
    keys = keys_of(options)
    named = {key.name: key for key in keys if not key.declaration.positional}
    given: dict[str, list[str]] = {}
    positional: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        if equals and _KEY.fullmatch(name):
            if name not in named:
                raise unknown_key(name, named, options.command)
            refuse_empty([word])
            given.setdefault(name, []).append(text)
        elif word.startswith("-"):
            raise _unknown_option(word, named, options.command)
        else:
            positional.append(word)
    values: dict[str, Any] = {named[name].attribute: _value(named[name], texts) for name, texts in given.items()}
    values |= _positional([key for key in keys if key.declaration.positional], positional, named)
    missing = [key.name for key in keys if key.required and key.attribute not in values]
    if missing:
        raise AnimegenError(
            f"Missing on the command line: {' '.join(f'{name}=...' for name in missing)}"
            f" (animegen {options.command} --help explains the keys)."
        )
    return options(**values)


def _value(key: Key, texts: Sequence[str]) -> Any:
    """Return the value of a key that was given once or several times."""
    if not is_list(key.kind):
        texts = texts[-1:]  # the last one counts, so that a script can append arguments
    elif texts[-1].startswith("[") and texts[-1].endswith("]"):
        texts = [part.strip() for part in texts[-1][1:-1].split(",")]  # likewise
    elif texts == ["null"] and type(None) in alternatives(key.kind):
        return None
    return _convert(key, texts)


def _convert(key: Key, texts: Sequence[str]) -> Any:
    if "" in texts:
        raise AnimegenError(f"{key.name}=[{','.join(texts)}] has an empty element: leave it out.")
    kind, limits = element(key.kind) if is_list(key.kind) else key.kind, key.declaration.limits
    values = []
    for text in texts:
        try:
            value = convert(text, kind)
            valid = accepts(value, kind, limits)
        except ValueError:
            valid = False
        if not valid:
            raise refusal(key.name, text if len(texts) == 1 else texts, key.kind, limits)
        values.append(_path(key.name, value) if key.declaration.path else value)
    return values if is_list(key.kind) else values[0]


def _path(name: str, text: str | None) -> str | None:
    """Return a path unchanged, including a slash at its end, but with the home folder in place of a tilde."""
    if text is None:
        return None
    user_path(name, text)
    return os.path.expanduser(text)


def _positional(keys: Sequence[Key], words: Sequence[str], named: Mapping[str, Key]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rest = list(words)
    for key in keys:
        if rest:
            values[key.attribute] = _convert(key, rest if is_list(key.kind) else rest[:1])
            rest = [] if is_list(key.kind) else rest[1:]
    if rest and keys:
        raise AnimegenError(f"'{rest[0]}' is one word too many: put a value with spaces into quotes.")
    if rest and not named:
        raise AnimegenError(f"'{rest[0]}' is one word too many: this command takes no keys.")
    if rest:
        missing = next((key.name for key in named.values() if key.required), next(iter(named), "key"))
        raise AnimegenError(
            f"'{rest[0]}' is not of the form key=value, such as {missing}=...: put a value with spaces into quotes."
        )
    return values


def unknown_key(name: str, known: Iterable[str], command: str) -> AnimegenError:
    """Return the error to raise for a key that a command does not have."""
    hint = meant(name, known := list(known), command) or did_you_mean(name, known)
    return AnimegenError(f"There is no key '{name}'.{hint} animegen {command} --help lists the keys.")


def _unknown_option(word: str, named: Mapping[str, Key], command: str) -> AnimegenError:
    name, _, text = word.lstrip("-").partition("=")
    if name.replace("-", "_") in named:
        return AnimegenError(f"There is no option '{word}'. Did you mean '{name.replace('-', '_')}={text or '...'}'?")
    return AnimegenError(f"There is no option '{word}': animegen {command} --help lists the keys, as key=value.")


# --- help -----------------------------------------------------------------------------------------------------


def help_text(options: type[Options], more: str = "") -> str:
    """Return the text of ``--help``, at most 80 columns wide.

    Args:
        options: the dataclass; its docstring describes the command, and ends with notes.
        more: text between the keys and the notes.
    """
    summary, _, notes = inspect.cleandoc(options.__doc__ or "").replace("``", "").partition("\n\n")
    keys = keys_of(options)
    usage = [f"animegen {options.command}", *(_usage(key) for key in keys if key.declaration.positional)]
    usage += [f"{key.name}=..." for key in keys if key.required and not key.declaration.positional]
    more_keys = any(not key.declaration.positional for key in keys)
    blocks = [
        " ".join([*usage, *(["[key=value ...]"] if more_keys else [])]),
        textwrap.fill(" ".join(summary.split()), _WIDTH),
    ]
    blocks += ["\n".join(_example(f"animegen {options.command} {example}") for example in options.examples)]
    for section in dict.fromkeys(key.declaration.section for key in keys):
        lines = [_line(key) for key in keys if key.declaration.section == section]
        blocks.append("\n".join([f"{section}:", *lines] if section else lines))
    blocks += [more.rstrip("\n")]
    blocks += [textwrap.fill(" ".join(paragraph.split()), _WIDTH) for paragraph in notes.split("\n\n")]
    return "\n\n".join(block for block in blocks if block)


def _usage(key: Key) -> str:
    name = f"<{key.name}>{' ...' if is_list(key.kind) else ''}"
    return name if key.required else f"[{name}]"


def _line(key: Key) -> str:
    declaration = key.declaration
    value = "..." if key.required else shown(key.default)
    left = f"  {_usage(key) if declaration.positional else f'{key.name}={value}'}"
    limits = _allowed(key)
    text = f"{declaration.help} [{limits}]" if limits else declaration.help
    lines = textwrap.wrap(text, _WIDTH - 24, break_on_hyphens=False) or [""]
    first = f"{left:<22}  {lines[0]}" if len(left) <= 22 else f"{left}\n{'':24}{lines[0]}"
    return "\n".join([first, *(f"{'':24}{line}" for line in lines[1:])])


def _allowed(key: Key) -> str:
    """Return the range or the choices of a key, or an empty string if any value is valid."""
    kind = element(key.kind) if is_list(key.kind) else key.kind
    kinds = [each for each in alternatives(kind) if each is not type(None)]
    if kinds == [bool] or kinds == [str] or Any in kinds or get_origin(kinds[0]) is dict:
        return ""
    kinds = [float if each is Fraction else each for each in kinds]
    texts = [_NOUN.sub("", describe(each, key.declaration.limits)) for each in kinds]
    return ", or ".join(text for text in texts if text)


def _example(command: str) -> str:
    """Return a command as lines that fit, with a backslash at the end of all but the last."""
    lines, line = [], " "
    for word in re.findall(r"(?:'[^']*'|\S)+", command):
        if len(line) + len(word) + 3 > _WIDTH and line.strip():
            lines.append(f"{line} \\")
            line = "     "
        line += f" {word}"
    return "\n".join([*lines, line])
