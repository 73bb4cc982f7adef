"""Shared fixtures; and the guard that proves that no test uses the network."""

from __future__ import annotations

import logging
import socket
import warnings

import pytest
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
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests where there is no CUDA."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
