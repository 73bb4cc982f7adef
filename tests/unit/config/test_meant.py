"""What is meant by keys that a command does not have."""

from __future__ import annotations

import pytest

from animegen.config.common import EncodingOptions
from animegen.config.meant import OWNERS, meant
from animegen.config.messages import no_key
from animegen.config.options import keys_of
from animegen.config.schema import TrainSchema
from animegen.curation.options import PrepareOptions
from animegen.inference.options import GenerateOptions, InterpolateOptions, StylizeOptions

COMMANDS = {
    "stylize": StylizeOptions,
    "interpolate": InterpolateOptions,
    "generate": GenerateOptions,
    "prepare": PrepareOptions,
}


def keys(command: str) -> list[str]:
    return [key.name for key in keys_of(COMMANDS[command])]


@pytest.mark.parametrize(("key", "command"), OWNERS.items())
def test_a_key_of_another_command_has_that_command(key: str, command: str) -> None:
    assert key in keys(command)


@pytest.mark.parametrize(
    ("command", "key", "hint"),
    [
        ("stylize", "factor", " factor= is a key of animegen interpolate."),
        ("interpolate", "frames", " frames= is a key of animegen generate."),
        ("interpolate", "strength", " strength= is a key of animegen stylize."),
        ("generate", "input", " Here it is first=a.png last=b.png, or keys=[a.png,b.png,c.png]."),
        ("stylize", "model", " Here it is checkpoint=."),
        ("stylize", "size", " Here it is max_side=."),
        ("prepare", "size", " Here it is short_side=."),
        ("stylize", "video", " Here it is input=."),
        ("stylize", "force", " Here it is overwrite=true."),
        ("stylize", "nonsense", ""),
    ],
)
def test_the_key_that_does_what_is_meant(command: str, key: str, hint: str) -> None:
    assert meant(key, keys(command), command) == hint


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("checkpoint", "Here it is init= (a new run from its weights) or resume= (to continue it)."),
        ("epochs", "Here it is train_steps=."),
        ("learning_rate", "Here it is model.optimizers.<network>.lr=."),
        ("style", "Did you mean 'data.style'?"),
        ("lr", "Did you mean 'model.lr'?"),
    ],
)
def test_keys_of_a_training(key: str, hint: str) -> None:
    known = [*(each.name for each in keys_of(TrainSchema)), "data.style", "model.lr"]
    assert no_key(key, known).endswith(hint)


def test_encoding_has_what_quality_means() -> None:
    assert meant("quality", [key.name for key in keys_of(EncodingOptions)], "stylize") == " Here it is crf=."
