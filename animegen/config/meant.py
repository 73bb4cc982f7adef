"""What is meant by keys that a command does not have: names that other programs use, and keys of other commands."""

from __future__ import annotations

from collections.abc import Iterable

#: Names that people try -> the keys that do the same, the first of which the command has is shown.
SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("in", "source", "src", "path", "photo", "photos", "image", "images", "video"), ("input=",)),
    "input": ("first=a.png last=b.png, or keys=[a.png,b.png,c.png]", "data="),
    **dict.fromkeys(("out", "output_dir", "out_dir", "save", "save_dir", "target", "name"), ("output=",)),
    **dict.fromkeys(("ckpt", "weights_path", "run"), ("checkpoint=", "resume=")),
    "checkpoint": ("init= (a new run from its weights) or resume= (to continue it)",),
    "model": ("checkpoint=", "look="),
    **dict.fromkeys(("size", "width", "height", "resolution", "max_size", "scale"), ("max_side=", "short_side=")),
    "quality": ("crf=",),
    **dict.fromkeys(("gpu", "gpus", "cuda"), ("device=cuda",)),
    **dict.fromkeys(("force", "replace"), ("overwrite=true",)),
    **dict.fromkeys(("workers", "num_workers", "cores", "n_threads"), ("threads=",)),
    **dict.fromkeys(("epochs", "max_epochs", "iterations", "iters", "max_steps"), ("train_steps=",)),
    **dict.fromkeys(("learning_rate", "rate"), ("model.optimizers.<network>.lr=",)),
    **dict.fromkeys(("batch", "bs"), ("data.batch_size=",)),
}

#: Keys that only one command has.
OWNERS: dict[str, str] = {
    **dict.fromkeys(("factor", "slowmo", "holds", "method", "selfcheck", "input_fps"), "interpolate"),
    **dict.fromkeys(("neighbours", "confidence"), "interpolate"),
    **dict.fromkeys(("frames", "first", "last", "keys", "temperature", "top_k", "top_p", "guidance"), "generate"),
    **dict.fromkeys(("style", "style_weights", "strength", "line_width", "max_side", "prefilter"), "stylize"),
    **dict.fromkeys(("check", "suggest_keys", "filter", "toonworld"), "prepare"),
}

#: Keys of Hydra's configurations, which the list of keys of a command does not name.
_OF_CONFIGURATIONS = ("data.batch_size=", "model.optimizers.<network>.lr=")


def meant(name: str, known: Iterable[str], command: str) -> str:
    """Return a sentence about a key that a command does not have, beginning with a blank, or an empty text.

    Args:
        name: the key.
        known: keys of the command.
        command: its name.
    """
    keys = set(known)
    for text in SYNONYMS.get(name, ()):
        first = text.partition("=")[0]
        if first in keys or (command == "train" and text in _OF_CONFIGURATIONS):
            return f" Here it is {text}."
    owner = OWNERS.get(name, command)
    return f" {name}= is a key of animegen {owner}." if owner != command else ""
