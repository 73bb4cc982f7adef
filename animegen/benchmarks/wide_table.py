"""Terminal table that is divided into blocks of columns if the terminal is too narrow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

#: Width of the frame that rich adds to a column: a blank on either side and a border.
FRAME = 3
#: Characters per line of a method's name, and of a metric's.
NAME = 13
METRIC = 27
#: Characters that a word may be longer, rather than broken.
SPARE = 3


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: its heading, rich markup.
        cells: a text for each row, rich markup; lines are separated by newlines.
        dim: whether the column is less important than others.
    """

    heading: str
    cells: Sequence[str]
    dim: bool = False

    @property
    def width(self) -> int:
        """Width of the text in terminal cells."""
        texts = (Text.from_markup(text).plain for text in (self.heading, *self.cells))
        return max(cell_len(line) for text in texts for line in (text.splitlines() or [""]))


@dataclass(frozen=True)
class WideTable:
    """A table whose columns never wrap.

    A table wider than the terminal is printed as several tables below one another. Each repeats the row labels, and the
    first of the columns where there is room for it.

    Attributes:
        labels: the column of row labels.
        columns: the other columns.
        title: text above the table.
        caption: text below the table.
        repeat: repeat the first column in each block, for comparison.
    """

    labels: Column
    columns: Sequence[Column]
    title: str = ""
    caption: str = ""
    repeat: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the blocks that fit the width of the console."""
        blocks = list(self.blocks(options.max_width))
        for number, block in enumerate(blocks):
            last = number == len(blocks) - 1
            table = Table(title=(self.title or None) if number == 0 else None, title_justify="left")
            table.caption, table.caption_justify = (self.caption or None) if last else None, "left"
            table.add_column(self.labels.heading, overflow="fold")
            for column in block:
                table.add_column(column.heading, justify="right", overflow="fold", style="dim" if column.dim else None)
            for row, label in enumerate(self.labels.cells):
                table.add_row(label, *(column.cells[row] for column in block))
            yield table

    def blocks(self, width: int) -> Iterator[list[Column]]:
        """Divide the columns into blocks at most ``width`` terminal cells wide.

        A block holds at least one column besides the repeated one, so a very narrow terminal folds texts.
        """
        room = width - 1 - FRAME - self.labels.width
        needed = [column.width + FRAME for column in self.columns]
        first = needed[0] if needed else 0
        widest = max(needed[1:], default=0)
        kept = [self.columns[0]] if self.repeat and needed and first + widest <= room else []
        block: list[Column] = []
        used = 0
        for column, size in zip(self.columns, needed, strict=True):
            if block and used + size > room:
                yield block
                block, used = list(kept), first if kept else 0
            block.append(column)
            used += size
        if block:
            yield block


def wrapped(text: str, width: int) -> str:
    """Break a name into lines of at most ``width`` characters, after separators; a word may be `SPARE` longer.

    A unit stays with the arrow behind it.
    """
    lines = [""]
    for part in re.split(r"(?<=[/+ ,_-])(?![↑↓])", text):
        size = width + SPARE if len(part) <= width + SPARE else width
        for piece in (part[start : start + size] for start in range(0, len(part), size)):
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
