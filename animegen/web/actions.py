"""What the buttons of the page do: an upload and its settings to the files of a result.

Every function writes into the folder of its request, which the page removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from animegen.errors import AnimegenError
from animegen.inference.display import Display, VideoDisplay
from animegen.inference.generate import generate
from animegen.inference.options import GenerateOptions, StylizeOptions
from animegen.inference.stylize import stylize
from animegen.media.kinds import Kind, kind_of
from animegen.media.photos import Photo, read_photo, shrink, write_photo
from animegen.media.video.opening import create_video, open_video
from animegen.web.models import checkpoint_of
from animegen.web.options import WebOptions

#: Suffixes of images that browsers show; others become PNG files.
SHOWN = (".jpg", ".jpeg", ".png", ".webp")
#: Largest number of seconds of a video, and of frames between two images.
LONGEST, MOST_FRAMES = 60, 60

T = TypeVar("T")
Report = Callable[[int, int | None], None]
"""Called with the number of finished frames and that of all, if known."""


class CancelledError(AnimegenError):
    """The user has cancelled the request."""


@dataclass(frozen=True)
class StylizedPhoto:
    """A photo before and after, of the same size; both can be shown by a browser."""

    before: Path
    after: Path
    text: str


@dataclass(frozen=True)
class StylizedVideo:
    """An MP4 file."""

    file: Path
    text: str


@dataclass(frozen=True)
class Clip:
    """Frames between two images, both included, as images, and as a video and an animation."""

    frames: list[Path]
    video: Path
    animation: Path
    text: str


class PageDisplay(Display):
    """Progress of a video on the page, in place of a terminal.

    Args:
        report: called after each frame.
        cancelled: asked at each frame; if true, the work ends with :class:`CancelledError`.
    """

    def __init__(self, report: Report, cancelled: Callable[[], bool]) -> None:
        super().__init__(1)
        self.bar, self.report, self.cancelled = None, report, cancelled
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a sentence for the page."""
        self.notes.append(text)

    def progress(self) -> None:
        """Show nothing: there is one file."""

    def searched(self, frames: Iterable[T]) -> Iterator[T]:
        """Yield frames until the work is cancelled."""
        for frame in frames:
            self.check()
            yield frame

    def check(self) -> None:
        """Raise :class:`CancelledError` if the work is cancelled."""
        if self.cancelled():
            raise CancelledError("Cancelled.")

    def video(self, name: str, done: int, total: int | None) -> VideoDisplay:
        """Show the progress of a video."""
        return _PageVideo(self, name, done, total)


class _PageVideo(VideoDisplay):
    display: PageDisplay

    def frame(self) -> None:
        self.count += 1
        self.display.check()
        self.display.report(self.count, self.total)


def stylize_photo(
    options: WebOptions, source: str | None, model: Any, strength: float, side: int, folder: Path
) -> StylizedPhoto:
    """Stylize a photo.

    Args:
        options: options of the command.
        source: the upload.
        model: name of an offered model.
        strength: 0 is the input, 1 the stylized image.
        side: longer side in pixels to which larger photos are scaled down.
        folder: folder of the request.

    Raises:
        AnimegenError: if something is missing, or the photo cannot be read.
    """
    path = _uploaded(source, "a photo", Kind.image, Kind.animation)
    after = folder / f"{path.stem}-anime{path.suffix if path.suffix.lower() in SHOWN else '.png'}"
    display = PageDisplay(lambda done, total: None, lambda: False)
    text = _stylized(options, model, path, after, display, strength=float(strength), max_side=side)
    before = folder / "before.jpg"
    photo = shrink(read_photo(path), side)
    write_photo(before, photo)
    return StylizedPhoto(before, after, f"{photo.pixels.shape[2]} x {photo.pixels.shape[1]} pixels, {text}")


def stylize_video(
    options: WebOptions,
    source: str | None,
    model: Any,
    strength: float,
    side: int,
    seconds: float,
    folder: Path,
    display: PageDisplay,
) -> StylizedVideo:
    """Stylize the beginning of a video; see :func:`stylize_photo`.

    Args:
        seconds: length of the part.
        display: shows the progress, and asks for cancellation.
    """
    path = _uploaded(source, "a video", Kind.video, Kind.animation)
    if not 0 < seconds <= LONGEST:
        raise AnimegenError(f"The page takes up to {LONGEST} seconds of a video: use animegen stylize for longer ones.")
    target = folder / f"{path.stem}-anime.mp4"
    end = Fraction(str(seconds))
    text = _stylized(options, model, path, target, display, strength=float(strength), max_side=side, end=end)
    return StylizedVideo(target, text)


def draw_between(
    options: WebOptions,
    first: str | None,
    last: str | None,
    model: Any,
    frames: int,
    fps: int,
    side: int,
    folder: Path,
) -> Clip:
    """Draw the frames between two images; see :func:`stylize_photo`.

    Args:
        frames: number of frames, both images included.
        fps: frames per second.
    """
    if not 3 <= frames <= MOST_FRAMES:
        raise AnimegenError(f"The page draws 3 to {MOST_FRAMES} frames: use animegen generate for more.")
    keys = [_uploaded(name, "two images", Kind.image, Kind.animation) for name in (first, last)]
    for place, path in zip(("first", "last"), keys, strict=True):
        # Without metadata and transparency, which a video has none of.
        write_photo(folder / f"{place}.png", Photo(shrink(read_photo(path), side).pixels))
    made = generate(
        GenerateOptions(
            **_shared(options, "generate", model),
            first=str(folder / "first.png"),
            last=str(folder / "last.png"),
            output=str(folder / "frames"),
            frames=frames,
            fps=Fraction(fps),
        )
    )
    reader = open_video(folder / "frames", Fraction(fps))
    video, animation = (folder / f"{keys[0].stem}-{keys[1].stem}{suffix}" for suffix in (".mp4", ".gif"))
    for target in (video, animation):
        with create_video(target, reader.info) as writer:
            for pixels, time in reader:
                writer.write(pixels, time)
            writer.close(reader.end)
    text = " ".join([made.text.rpartition(":")[0] + ".", *made.notes])
    return Clip(sorted((folder / "frames").iterdir()), video, animation, text)


def _uploaded(source: str | None, what: str, *kinds: Kind) -> Path:
    """Return the path of an upload of one of some kinds."""
    if not source:
        raise AnimegenError(f"Drop {what} first.")
    path = Path(source)
    if kind_of(path) not in kinds:
        names = " or ".join(kind.value for kind in kinds)
        raise AnimegenError(f"'{path.name}' is no {names} that can be read: drop {what}.")
    return path


def _shared(options: WebOptions, command: str, model: Any) -> dict[str, Any]:
    """Return the keys of all commands that apply a model."""
    values = {name: getattr(options, name) for name in ("runs", "device", "threads", "precision")}
    return {**values, "checkpoint": checkpoint_of(options, command, model)}


def _stylized(
    options: WebOptions, model: Any, source: Path, target: Path, display: PageDisplay, **settings: Any
) -> str:
    """Stylize a file; return a summary and the notes.

    Raises:
        AnimegenError: if the file was skipped.
    """
    shared = _shared(options, "stylize", model)
    summary = stylize(StylizeOptions(**shared, input=str(source), output=str(target), **settings), display)
    if summary.skipped:
        raise AnimegenError(summary.skipped[0])
    frames = f"{summary.frames} frames, " if summary.frames > 1 else ""
    return " ".join([f"{frames}{summary.seconds:.1f} s.", *display.notes, *summary.incomplete])
