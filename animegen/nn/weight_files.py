"""Weights in files of PyTorch: read as data, without running code from the file, and checked before use."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animegen.config.plain import shown
from animegen.errors import AnimegenError
from animegen.files import is_utf8, regular_file

State = dict[str, Tensor]

#: Levels of nesting and number of values in a file, far beyond those of any state of a training.
_DEPTH, _VALUES = 100, 10_000_000


def load_data(path: str | Path, what: str, remedy: str, mapped: bool = False) -> Any:
    """Return the content of a file of ``torch.save``: tensors, containers and scalars.

    Args:
        path: the file.
        what: what it is for messages, e.g. ``a checkpoint``.
        remedy: what to do about a file that cannot be read, without a period.
        mapped: map the file into memory instead of reading it. It must then be an archive, not compressed, as
            ``torch.save`` writes it.

    Raises:
        AnimegenError: if it is missing or damaged, or holds anything else. No code of it is run.
    """
    regular_file(path)
    try:
        if mapped:
            _check_archive(path)
        with _plain_types_only():
            if is_utf8(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            with open(path, "rb") as file:  # PyTorch opens no other names
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly every kind of exception
        raise AnimegenError(
            f"'{path}' cannot be read as {what} ({type(error).__name__}): it is damaged, no PyTorch file, or holds"
            f" Python objects, which are not loaded since they can run code; {remedy}."
        ) from error


@contextmanager
def _plain_types_only() -> Iterator[None]:
    """Load nothing but what PyTorch itself allows: libraries add types of their own, such as distributed tensors."""
    added = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        torch.serialization.add_safe_globals(added)


def _check_archive(path: str | os.PathLike) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed")


def check_sums(path: str | os.PathLike, remedy: str) -> None:
    """Compare all parts of an archive of ``torch.save`` with the checksums (CRC-32) that were written with them.

    ``torch.load`` does not. It takes about a second per GiB.

    Args:
        path: the file.
        remedy: what to do if they differ, without a period.

    Raises:
        AnimegenError: if a part has changed since it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise AnimegenError(f"'{path}' is damaged ({first_line(error)}): {remedy}.") from error
    if part is not None:
        raise AnimegenError(
            f"'{path}' is damaged: its part {shown(part)} does not have the checksum that was written with it (bits"
            f" have changed on the disk or in a copy): {remedy}."
        )


def checked_state(content: Any, source: str) -> State:
    """Return a state dict with its tensors, after checking that they are ordinary ones.

    Extra states of modules, which are no tensors, are left out.

    Args:
        content: what was loaded in place of the state dict.
        source: the file for messages, e.g. ``'a.ckpt'``.

    Raises:
        AnimegenError: if it is no dict of names and tensors, or a tensor is not dense, real, and inside the file.
    """
    if type(content) not in (dict, OrderedDict):
        raise AnimegenError(f"{source} holds no state dict (a dict of names and tensors): use another file.")
    state: State = {}
    for name, value in dict.items(content):
        if type(name) is not str:
            raise AnimegenError(f"{source} holds a state dict with the key {shown(name)}, which is not a text.")
        if not name.endswith("_extra_state"):
            if fault := tensor_fault(value):
                raise AnimegenError(f"{source} cannot be used: its weight {shown(name)} is {fault}.")
            state[name] = value
    return state


def tensor_fault(value: Any) -> str | None:
    """Return what keeps a value from being an ordinary tensor, or ``None``."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"of the type {type(value).__name__}, not a tensor"
    if value.layout is not torch.strided:
        return f"a tensor of the layout {value.layout}, not a dense one"
    if value.device.type != "cpu":
        return f"a tensor without data (device {value.device})"
    if value.is_quantized or value.is_complex() or value.is_nested:
        return f"a tensor of the type {value.dtype}, not of real numbers"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a tensor of the shape {tuple(value.shape)}, larger than its data in the file"
    return None


def check_content(content: Any, source: str) -> None:
    """Check that loaded data hold ordinary tensors, standard containers and scalars, and end.

    Raises:
        AnimegenError: if not.
    """
    waiting = [(content, 0)]
    count = 1
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, Tensor):
            if fault := tensor_fault(item):
                raise AnimegenError(f"{source} cannot be used: it holds {fault}.")
        elif isinstance(item, dict | list | tuple | set):
            # Of the base class: an instance from a file may have attributes in place of methods.
            parts = [*dict.keys(item), *dict.values(item)] if isinstance(item, dict) else list(item)
            count += len(parts)
            if level >= _DEPTH or count > _VALUES:
                raise AnimegenError(f"{source} cannot be used: it is nested without end, or holds too many values.")
            waiting += [(part, level + 1) for part in parts]


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, for messages."""
    text = str(error).strip().splitlines()
    return shown(text[0] if text else type(error).__name__, 160)[1:-1]
