"""Videos of the generated world as files with sound, to try commands on."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import torch

from animegen.errors import AnimegenError
from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.writer import VideoWriter
from animegen.toonworld.film import Film

RATE = 48000
"""Samples of sound per second."""


def write_generated_video(
    path: str | Path, film: Film, encoding: Encoding | None = None, overwrite: bool = True
) -> None:
    """Write a generated video with its sound; it appears under its name when it is complete.

    Args:
        path: the file, whose suffix says which container.
        film: of an even width and height.
        encoding: codec and quality; ``None``: the defaults.
        overwrite: replace a file of that name.

    Raises:
        AnimegenError: if the file cannot be written, or must not be replaced.
    """
    height, width = film.shape
    fps = Fraction(film.fps).limit_denominator(1001)
    info = VideoInfo(width, height, fps, 1 / (2 * fps))  # variable rates count in half frames
    times = [round(float(seconds) * 2 * fps) / (2 * fps) for seconds in film.timestamps()]
    end = times[-1] + Fraction(round(float(film.durations[-1]) * 2 * fps)) / (2 * fps)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "tone.mka"
        try:
            _write_tone(sound, film)
        except OSError as error:
            raise AnimegenError(
                f"'{path}' cannot be written, since its sound needs a place in '{folder}' ({error.strerror}): make room"
                " there, or set TMPDIR to another folder."
            ) from error
        with VideoWriter(Path(path), info, encoding or Encoding(), sound, overwrite=overwrite) as writer:
            for number, image in enumerate(film):
                writer.write(torch.from_numpy(image).permute(2, 0, 1), times[number])
            writer.close(end)


def _write_tone(path: Path, film: Film) -> None:
    """Write the video's sound alone, AAC in Matroska."""
    tone = film.audio(RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        for begin in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
