"""Films are decoded, drawn and encoded at the same time: files, errors and interruptions are those of one stage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import pytest
import torch

from animegen.cli import interpolate, stylize
from animegen.errors import AnimegenError
from animegen.inference import application, segments, videos
from animegen.media.video.writer import VideoWriter
from tests.integration.test_stylize_films import Counts, film_with_sound
from tests.support import refused, run_verb

VERBS = {"stylize": stylize, "interpolate": interpolate}


class AtOnce:
    """Calls that are performed when they are given, by the caller."""

    def __init__(self, most: int) -> None:
        pass

    def __call__(self, call: Callable[[], object]) -> None:
        call()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def when_asked(items: Iterable[Any], most: int) -> Iterator[Any]:
    yield from items


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "load_model", lambda *_, **__: Counts().eval())
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    monkeypatch.setattr(videos, "LONGEST", 7)


def words(source: Path, target: Path) -> list[str]:
    return ["checkpoint=some.ckpt", "device=cpu", f"input={source}", f"output={target}"]


def decoded(path: Path) -> list[tuple[str, int | None, bytes]]:
    """Return kind, time and content of all frames of a file, sound included."""
    with av.open(str(path)) as container:
        return [(type(f).__name__, f.pts, f.to_ndarray().tobytes()) for f in container.decode()]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_files_are_equal(verb: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film_with_sound(tmp_path / "in.mp4")
    together, alone = tmp_path / f"together{suffix}", tmp_path / f"alone{suffix}"
    assert run_verb(VERBS[verb].main, *words(source, together)) == 0
    monkeypatch.setattr(segments, "Behind", AtOnce)
    monkeypatch.setattr(videos, "ahead", when_asked)
    assert run_verb(VERBS[verb].main, *words(source, alone)) == 0
    # x264 rarely encodes the same frames otherwise, so videos are compared as decoded.
    assert suffix == ".mp4" or together.read_bytes() == alone.read_bytes()
    assert decoded(together) == decoded(alone)


@pytest.mark.parametrize("verb", VERBS)
def test_a_frame_that_cannot_be_stored(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = film_with_sound(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    append = VideoWriter._append

    def fails(self: VideoWriter, *given: Any) -> None:
        if self.count == 5:
            raise AnimegenError("No space is left on the disk: make room.")
        append(self, *given)

    monkeypatch.setattr(VideoWriter, "_append", fails)
    message = refused(capsys, run_verb(VERBS[verb].main, *words(source, target)))
    assert message == "animegen: No space is left on the disk: make room."
    assert not target.exists()
    assert [path.name for path in (tmp_path / "out.mp4.partial").iterdir()] == ["animegen.json"]
    assert not [thread for thread in threading.enumerate() if thread.name in ("ahead", "behind")]
    monkeypatch.setattr(VideoWriter, "_append", append)
    assert run_verb(VERBS[verb].main, *words(source, target)) == 0


def test_a_model_on_the_cpu_leaves_cores_to_the_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(application, "count_cores", lambda: 16)
    application.share_cores(None, torch.device("cpu"))
    application.share_cores(4, torch.device("cpu"))
    application.share_cores(None, torch.device("cuda"))
    assert chosen == [15]
