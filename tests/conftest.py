"""Shared fixtures; and the guard that proves that no test uses the network.

PyTorch is imported by the fixtures, since the process that only hands out tests (pytest-xdist) reads this file, too.
"""

from __future__ import annotations

import gc
import logging
import socket
import warnings
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine only (distributed tests talk to themselves)."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in ("local", "127.0.0.1", "localhost", "::1", "0.0.0.0"):
            raise AssertionError(f"a test wants to reach {host}: tests run without a network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    resolve = socket.getaddrinfo

    def guarded_resolve(host: object, *arguments: object, **options: object) -> object:
        if host not in (None, "", "127.0.0.1", "localhost", "::1", "0.0.0.0", socket.gethostname()):
            raise AssertionError(f"a test wants to look up {host}: tests run without a network")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(autouse=True)
def _quiet_and_seeded() -> None:
    import torch

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)


def remembered(draw: Callable[[Any], dict[str, Any]], key: Callable[[Any], str]) -> Callable[[Any], dict[str, Any]]:
    """Return a function that draws what a key stands for once, and copies it; arrays are kept if they are small."""
    import numpy as np

    known: dict[str, dict[str, Any]] = {}

    @wraps(draw)
    def recall(what: Any) -> dict[str, Any]:
        found = known.get(key(what)) or draw(what)
        arrays = [value for value in found.values() if isinstance(value, np.ndarray)]
        if sum(array.nbytes for array in arrays) < 2**19 and len(known) < 300:
            known[key(what)] = found
        return deepcopy(found)  # tests may write into what they get

    return recall


def drawn_once(draw: Callable[[Any], dict[str, Any]], key: Callable[[Any], str]) -> Callable[[Any], dict[str, Any]]:
    """Return a function that draws the tensors of a key once, and copies them, which is faster."""
    known: dict[str, dict[str, Any]] = {}

    @wraps(draw)
    def recall(what: Any) -> dict[str, Any]:
        if key(what) not in known:
            known[key(what)] = draw(what)
        return {name: value.clone() for name, value in known[key(what)].items()}

    return recall


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> Iterator[None]:
    """Remember small scenes of the generated world and random feature weights, which their arguments determine."""
    from animegen.nn import features
    from animegen.toonworld import source

    def shapes(network: torch.nn.Module) -> str:
        return str([(name, value.shape) for name, value in network.state_dict().items()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_scene_looks", remembered(source._scene_looks, repr))
        patch.setattr(features, "_random_state", drawn_once(features._random_state, shapes))
        yield


def _run_to_read(folder: Path, experiment: str) -> Iterator[Path]:
    """Train one step, and check at the end that nothing has changed the run."""
    from tests.support import train

    run = train(f"experiment={experiment}", "train_steps=1", output=folder / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    yield run
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one step of a stylizer, to be read only."""
    yield from _run_to_read(tmp_path_factory.mktemp("toy"), "toy/quickstart")


@pytest.fixture(scope="session")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one step of an interpolator, whose network draws nearly the blend; to be read only."""
    yield from _run_to_read(tmp_path_factory.mktemp("between"), "interpolation/quickstart")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what lives as long as the process: modules, and the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests where there is no CUDA."""
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
