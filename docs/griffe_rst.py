"""Griffe extension: the reStructuredText of our docstrings (roles, literal blocks, simple tables) as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|mod|meth|attr|data|exc):`(~?)([\w.]+)`")
LITERAL = re.compile(r"^(.*?):?:: *$", re.MULTILINE)
TABLE = re.compile(r"^( *)(=+(?: +=+)+)\n(.*?)^ *=+(?: +=+)+$\n(?=\s*\n|\Z)", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"^ *=+(?: +=+)+$")


class Restructured(griffe.Extension):
    """Rewrite docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = TABLE.sub(_table, obj.docstring.value + "\n")
            text = LITERAL.sub(lambda found: f"{found[1]}:" if found[1].strip() else "", text)
            obj.docstring.value = ROLE.sub(_link, text).rstrip()


def _link(role: re.Match[str]) -> str:
    """Turn a role into a link to the documented object, or into code outside this package."""
    name = role[2]
    shown = name.rsplit(".", 1)[-1] if role[1] else name
    return f"[`{shown}`][{name}]" if name.startswith("animegen.") else f"`{shown}`"


def _table(found: re.Match[str]) -> str:
    """Turn a simple table into one of Markdown. A row whose first cell is empty continues the row above it."""
    indent, ruler, body = found.groups()
    starts = [match.start() for match in re.finditer("=+", ruler)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    lines = body.splitlines()
    headed = any(RULE.match(line) for line in lines)
    rows: list[list[str]] = [] if headed else [[""] * len(spans)]
    for line in lines:
        cells = [line[len(indent) :][start:end].strip() for start, end in spans]
        if RULE.match(line) or not line.strip():
            continue
        if cells[0] or not rows:
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    rows.insert(1, ["---"] * len(spans))
    return "".join(f"{indent}| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
