"""Looks: trained weights that ship with animegen, each a folder with a small checkpoint and a card.

The card is a ``README.md`` whose front matter describes the look. This module imports no PyTorch, so that looks are
listed and mistakes answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from animegen.config.sources import package_folder
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import read_text

#: The files of a look.
WEIGHTS, CARD = "look.ckpt", "README.md"
#: The folder of the shipped looks.
SHIPPED = package_folder("weights")
#: Command -> the look that it applies without ``checkpoint=`` and ``look=``, if it is shipped.
USUAL = {"stylize": "cel", "interpolate": "between", "generate": "between"}
#: The same for videos, where it is another one.
USUAL_FOR_VIDEOS = {"stylize": "cel_film"}


@dataclass(frozen=True)
class Look:
    """Weights that ship with animegen.

    Attributes:
        name: of its folder.
        file: the checkpoint.
        family: of the model.
        commands: that apply it, the main one first.
        about: what it is for; a phrase.
        licence: of the weights.
    """

    name: str
    file: Path
    family: str
    commands: tuple[str, ...]
    about: str
    licence: str

    @property
    def description(self) -> str:
        """What it is for, and the facts of its card, in a line."""
        facts = f"{self.commands[0]}, {self.family}, {self.file.stat().st_size / 1e6:.1f} MB, {self.licence}"
        return f"{self.about} ({facts})"


@lru_cache
def looks() -> Mapping[str, Look]:
    """Return the shipped looks by name."""
    files = sorted(SHIPPED.glob(f"*/{WEIGHTS}"))
    return {file.parent.name: read_look(file) for file in files}


def read_look(file: Path) -> Look:
    """Return the look of a checkpoint, as described by the card beside it."""
    facts = yaml.safe_load(read_text(file.with_name(CARD)).split("---\n")[1])
    commands = tuple(facts["commands"])
    return Look(file.parent.name, file, facts["family"], commands, facts["about"], facts["licence"])


def look_for(command: str, name: str | None = None, videos: bool = False) -> Look | None:
    """Return the look that a command applies.

    Args:
        command: ``stylize``, ``interpolate`` or ``generate``.
        name: of the look; ``None`` for the usual one of the command, if it is shipped.
        videos: whether it is applied to videos, which may have a usual look of their own.

    Raises:
        AnimegenError: if there is no such look, or if it is for another command.
    """
    if name is None:
        usual = looks().get(USUAL[command])
        return looks().get(USUAL_FOR_VIDEOS.get(command, ""), usual) if videos else usual
    look = looks().get(name)
    if look is None:
        raise AnimegenError(f"There is no look '{name}'.{did_you_mean(name, looks())} animegen list looks shows them.")
    if command not in look.commands:
        raise AnimegenError(
            f"The look '{name}' is for animegen {look.commands[0]}, not for {command}: animegen list looks shows"
            " which there are."
        )
    return look
