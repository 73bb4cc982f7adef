"""Results by file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Summary:
    """Results of a command.

    Attributes:
        done: number of files written.
        frames: number of computed images and frames of videos.
        seconds: duration.
        skipped: one sentence for each file that was not written, with the reason.
        incomplete: a sentence for each video with missing parts.
    """

    done: int = 0
    frames: int = 0
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = "images" if self.frames == self.done else "frames"
        rate = f", {self.frames / self.seconds:.2f} {what}/s" if self.frames and self.seconds else ""
        lines = [f"{self.done} done, {len(self.skipped)} skipped, {self.seconds:.1f} s{rate}"]
        lines += [f"skipped: {reason}" for reason in self.skipped]
        return "\n".join([*lines, *(f"incomplete: {reason}" for reason in self.incomplete)])
