"""Errors of Hydra and OmegaConf as one sentence with the closest valid key or option."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from animegen.config.meant import meant
from animegen.errors import AnimegenError, did_you_mean

Sentence = str | None


def check_words(words: Sequence[str], options: Sequence[str]) -> None:
    """Raise for an argument that is not an override, or a key without a value.

    An empty value is nearly always an unset variable of the shell, and would select the default or the current
    folder, also in quotes.

    Args:
        words: overrides: ``key=value``, ``+key=value``, ``~key``.
        options: all options of the configuration groups, as ``group/option``.
    """
    refuse_empty(words)
    for word in words:
        key, equals, value = word.partition("=")
        _refuse_no_option(key, value, options)
        if word.startswith("~") or (key.strip("+") and equals):
            continue
        meant = ["=".join(option.split("/", 1)) for option in options if option.endswith(f"/{word}")]
        hint = f" Did you mean {' or '.join(repr(o) for o in meant[:3])}?" if meant else ""
        raise AnimegenError(f"'{word}' is not of the form key=value.{hint}")


def refuse_empty(words: Sequence[str]) -> None:
    """Raise for an empty argument, or a key whose value is empty or a pair of quotes.

    Args:
        words: arguments of the command line.
    """
    for word in words:
        key, equals, value = word.partition("=")
        if not word.strip():
            raise AnimegenError("One of the words is empty: leave it out, or set the variable of the shell in it.")
        if equals and not value.strip(" \t\r\n'\"") and not word.startswith("~"):
            raise AnimegenError(
                f"{key}= has no value: give one, or leave {key}= out (perhaps a variable of the shell is not set)."
            )


def _refuse_no_option(group: str, value: str, options: Sequence[str]) -> None:
    """Raise if a configuration group is set to null, a number or a truth value, which Hydra does not accept."""
    names = [option.removeprefix(f"{group}/") for option in options if option.startswith(f"{group}/")]
    if not names or not re.fullmatch(r"null|true|false|[-+]?[0-9.]+", value.strip(), re.IGNORECASE):
        return
    remedy = f"use {group}=none" if "none" in names else f"use one of {', '.join(names[:8])}"
    raise AnimegenError(
        f"{group}={value} is not valid, since {group} is a group of options: {remedy}, or leave it out."
    )


def explain(error: BaseException, words: Sequence[str], known: Sequence[str], options: Sequence[str]) -> str:
    """Return one sentence about a failed composition.

    Args:
        error: an exception of Hydra or OmegaConf.
        words: the overrides of the command line.
        known: the dotted keys of the configuration, and its groups.
        options: all options of the configuration groups, as ``group/option``.
    """
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    rules: list[Callable[[], Sentence]] = [
        lambda: _option(text, options),
        lambda: _group(text),
        lambda: _deleted(text, known),
        lambda: _key(text, words, known),
        lambda: _value(text),
        lambda: _kind(text, words),
        lambda: _list(text),
        lambda: _exists(text),
        lambda: _interpolation(text, known),
        lambda: _grammar(text),
    ]
    for rule in rules:
        if sentence := rule():
            return sentence
    return text


def no_key(key: str, known: Sequence[str]) -> str:
    """Report an unknown key, with the closest ones by position, then by name."""
    nested = any(k.rpartition(".")[2] == key for k in known)
    if not nested and (hint := meant(key, known, "train")):
        return f"There is no key '{key}' in this configuration.{hint}"
    parent, _, name = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == parent]
    near = [f"{parent}.{n}" if parent else n for n in _near(name, [k.rpartition(".")[2] for k in siblings])]
    near += difflib.get_close_matches(key, known, n=3, cutoff=0.85)
    near += [k for k in known if k.rpartition(".")[2] == name]
    hint = did_you_mean(key, list(dict.fromkeys(near))[:3], cutoff=0.0)
    if not near and parent in known and not siblings:
        hint = f" '{parent}' has no keys: set it as a whole, {parent}={{{name}: ...}}."
    elif not near and parent in known:
        hint = f" '{parent}' has: {', '.join(k.rpartition('.')[2] for k in siblings)}; +{key}=... adds a key."
    return f"There is no key '{key}' in this configuration.{hint}"


def _near(word: str, words: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(word, list(words), n=3, cutoff=0.6)


def no_option(wanted: str, options: Sequence[str]) -> str:
    """Report an unknown option of a configuration group, with the closest ones.

    Args:
        wanted: the option, as ``group/option``.
        options: all options of the configuration groups.
    """
    group, folder = wanted.split("/")[0], wanted.rpartition("/")[0]
    below = [o[len(folder) + 1 :] for o in options if o.startswith(f"{folder}/")]
    hint = did_you_mean(wanted, [o for o in options if o.startswith(f"{group}/")] or options)
    return f"There is no option '{wanted}'.{hint} '{folder}' has: {', '.join(below) or 'nothing'}."


def _option(text: str, options: Sequence[str]) -> Sentence:
    found = re.search(r"Could not (?:find|load) '([^']+)'", text)
    return no_option(found.group(1), options) if found else None


def _group(text: str) -> Sentence:
    found = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    return f"This command has no group '{found.group(1)}': leave out {found.group(1)}=." if found else None


def _deleted(text: str, known: Sequence[str]) -> Sentence:
    found = re.search(r"Could not delete from config\. '([^']+)' does not exist", text)
    return no_key(found.group(1), known).split("; +")[0].removesuffix(".") + "." if found else None


def _key(text: str, words: Sequence[str], known: Sequence[str]) -> Sentence:
    found = re.search(r"Could not override '([^']+)'", text)
    if found and found.group(1) not in known:
        return no_key(found.group(1), known)
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in '[^']*')(?: full_key: (\S+))?", text)
    key = (found.group(2) or found.group(1)) if found else ""
    if "@" in key or key.startswith(("experiment.", "ablation.")):
        return (
            f"The configuration file sets '{key}' in its own group: begin it with the line '# @package _global_', and"
            " choose other groups with 'override /<group>: <option>' (with the slash)."
        )
    return no_key(key, known) if found else None


def _value(text: str) -> Sentence:
    key = re.search(r"full_key: (\S+)", text)
    name = key.group(1) if key else "a value"
    typed = re.search(r"Value '([^']*)' of type '[^']*' could not be converted to (\w+)", text)
    if typed:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        kind = kinds.get(typed.group(2), typed.group(2))
        return f"{name}={typed.group(1)} has the wrong type: it must be {kind}."
    boolean = re.search(r"Value '([^']*)' is not a valid bool", text)
    if boolean:
        return f"{name}={boolean.group(1)} has the wrong type: it must be true or false."
    choice = re.search(r"Invalid value '([^']*)', expected one of \[([^\]]*)\]", text)
    if choice:
        near = did_you_mean(choice.group(1), choice.group(2).split(", "))
        return f"{name}={choice.group(1)} is not possible: use one of {choice.group(2)}.{near}"
    return None


def _kind(text: str, words: Sequence[str]) -> Sentence:
    """Explain a value in place of a list or a mapping, or null in place of a value."""
    found = re.search(r"full_key: (\S+)", text)
    key = found.group(1) if found else "a value"
    value = next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{key}=")), "...")
    if "is not a ListConfig, list or tuple" in text:
        return f"{key} is a list: write {key}=[{value}]."
    if "is not Optional" in text:
        return f"{key}=null is not possible: give {key} a value, or leave it out."
    if re.search(r"Cannot (assign|convert) \S+ to Dict|is not a DictConfig", text):
        return f"{key}={value} must be a mapping: {key}={{name: value}}."
    return None


def _list(text: str) -> Sentence:
    found = re.search(r"Ambiguous value for argument '([^']+)'", text)
    if found is None:
        return None
    key, _, value = found.group(1).partition("=")
    return (
        f"'{found.group(1)}' gives several values: write -m in front to run once with each,"
        f" {key}=[{value}] for a list, or \"{key}='{value}'\" for a text."
    )


def _exists(text: str) -> Sentence:
    found = re.search(r"Could not append to config\. An item is already at '([^']+)'", text)
    return f"The key '{found.group(1)}' is there already: write it without the '+'." if found else None


def _interpolation(text: str, known: Sequence[str]) -> Sentence:
    found = re.search(r"Interpolation key '([^']+)' not found(?:.*full_key: (\S+))?", text)
    if found is None:
        return None
    return f"{found.group(2) or 'A value'} refers to '{found.group(1)}': {no_key(found.group(1), known)}"


def _grammar(text: str) -> Sentence:
    if "override_grammar" not in text:
        return None
    what = text.split(" See https:")[0]
    return (
        f"The command line cannot be read ({what}): put a value with special characters into quotes, \"key='a (b)'\"."
    )
