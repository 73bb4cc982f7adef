"""Safe loading of PyTorch weight files: no code of the file is run, and the content is checked."""

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

#: Limits on the nesting depth and number of values in a file, far beyond those of any training state.
_DEPTH, _VALUES = 100, 10_000_000


def load_data(path: str | Path, what: str, remedy: str, mapped: bool = False) -> Any:
    """Return the content of a file written by ``torch.save``: tensors, containers and scalars.

    Args:
        path: the file.
        what: description of the file for error messages, e.g. ``a checkpoint``.
        remedy: advice for error messages, without a period.
        mapped: memory-map the file instead of reading it. It must be an uncompressed archive, as ``torch.save``
            writes it.

    Raises:
        AnimegenError: if the file is missing, damaged, or holds other objects. No code of it is run.
    """
    regular_file(path)
    try:
        if mapped:
            _check_archive(path)
        with _plain_types_only():
            if is_utf8(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            with open(path, "rb") as file:  # PyTorch cannot open names that are not UTF-8
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly every kind of exception
        raise AnimegenError(
            f"'{path}' cannot be read as {what} ({type(error).__name__}): it is damaged, no PyTorch file, or holds"
            f" Python objects, which are not loaded since they can run code; {remedy}."
        ) from error


@contextmanager
def _plain_types_only() -> Iterator[None]:
    """Restrict ``torch.load`` to PyTorch's default types; libraries register more, such as distributed tensors."""
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
    """Verify the checksums (CRC-32) of all parts of an archive written by ``torch.save``; ``torch.load`` does not.

    It takes about a second per GiB.

    Args:
        path: the file.
        remedy: advice for error messages, without a period.

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
    """Return the tensors of a state dict after checking them, without the extra states of modules.

    Args:
        content: the loaded object.
        source: the file for error messages, e.g. ``'a.ckpt'``.

    Raises:
        AnimegenError: if it is no dict of names and tensors, or a tensor is not dense, real, and within the file's
            data.
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
    """Describe why a value is not a dense, real tensor with data, or return ``None``."""
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
    """Check the tensors, nesting depth and size of loaded data.

    Raises:
        AnimegenError: for invalid tensors, or data nested too deeply or too large.
    """
    waiting = [(content, 0)]
    count = 1
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, Tensor):
            if fault := tensor_fault(item):
                raise AnimegenError(f"{source} cannot be used: it holds {fault}.")
        elif isinstance(item, dict | list | tuple | set):
            # Methods of the base class: an instance from a file may have attributes that shadow them.
            parts = [*dict.keys(item), *dict.values(item)] if isinstance(item, dict) else list(item)
            count += len(parts)
            if level >= _DEPTH or count > _VALUES:
                raise AnimegenError(f"{source} cannot be used: it is nested without end, or holds too many values.")
            waiting += [(part, level + 1) for part in parts]


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    text = str(error).strip().splitlines()
    return shown(text[0] if text else type(error).__name__, 160)[1:-1]
