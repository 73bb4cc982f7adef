"""The codes of all training clips, kept on disk: a transformer that reads them never sees a picture."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from animegen.config.plain import read_json
from animegen.data.clips import ClipsView
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.media.images import to_float
from animegen.models.ganime.networks.tokenizer import Tokenizer
from animegen.nn.array_files import load_array

log = logging.getLogger(__name__)

#: Pictures that go through the encoder at a time: fixed, since another number could round differently.
_CHUNK = 16
#: Largest codebook: two bytes per code.
LIMIT = 2**16


class CodeTable:
    """The codes of all frames of all clips, as they are and mirrored left to right.

    Args:
        codes: (2,N,h,w) int16, the bits of unsigned numbers: frame after frame, clip after clip; second the mirrored.
        lengths: (clips,) int64, frames per clip.
    """

    def __init__(self, codes: Tensor, lengths: Tensor) -> None:
        self.codes, self.lengths = codes, lengths
        self.starts = lengths.cumsum(0) - lengths

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the codes of a frame."""
        return self.codes.shape[2], self.codes.shape[3]

    def to(self, device: torch.device) -> CodeTable:
        """Return the table on a device."""
        return CodeTable(self.codes.to(device), self.lengths.to(device))

    def take(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the codes of clips, int64 (B,T,h,w), where they are.

        Args:
            batch: ``clip`` and ``mirror`` (B,), ``frames`` (B,T), int64, see :class:`~animegen.data.clips.ClipsView`.

        Raises:
            AnimegenError: if the batch holds frames, as it does for as long as the tokenizer learns.
        """
        if "clip" not in batch:
            raise AnimegenError(
                "The transformer learns from the numbers of clips, but the data give frames: it needs data=clips/..."
                " with data.repeat_first_batch=false."
            )
        places = self.starts[batch["clip"]].unsqueeze(1) + batch["frames"]
        return self.codes[batch["mirror"].unsqueeze(1), places].long() & (LIMIT - 1)


def describe(view: ClipsView) -> dict[str, Any]:
    """Return what tells the clips of a view from others, as plain values.

    Names, lengths and size of all clips, and the first and last frame of eight of them: the settings of a source (look,
    seed, speed) show there whatever they are called.
    """
    clips = view.clips
    count = len(clips)
    digest = hashlib.sha256()
    for index in sorted({count * k // 8 for k in range(8)}):
        for number in (0, clips.length(index) - 1):
            picture = view.frame(index, number)
            digest.update(b"broken" if picture is None else picture.contiguous().numpy().tobytes())
    names = "\n".join(f"{clips.name(i)} {clips.length(i)}" for i in range(count))
    return {
        "source": type(clips).__name__,
        "split": getattr(clips, "split", None),
        "seed": getattr(clips, "seed", None),
        "clips": count,
        "shape": list(view.shape),
        "names": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
        "pictures": digest.hexdigest(),
    }


def weights_key(tokenizer: Tokenizer) -> str:
    """Return a hash of all weights and buffers of a tokenizer."""
    digest = hashlib.sha256()
    for name, value in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def code_table(folder: Path, tokenizer: Tokenizer, view: ClipsView, build: bool = True) -> CodeTable:
    """Return the codes of the clips of a view: read from ``folder``, or made, and then kept there.

    The table lies in ``folder/<key>/``: ``codes.npy``, uint16 (2, frames, h, w), and ``table.json``, which is written
    last, so that a table without it counts as none. The key is a hash of tokenizer and data.

    Args:
        folder: where tables are kept.
        tokenizer: in eval mode.
        view: whose clips; prepared.
        build: make the table if it is not there; else that is an error (other processes have to wait for the first).

    Raises:
        AnimegenError: if the table there is of another tokenizer or of other data, or damaged; if there are more codes
            than fit into two bytes.
    """
    if tokenizer.codes > LIMIT:
        raise AnimegenError(f"A table of codes holds numbers below {LIMIT}, and the codebook has {tokenizer.codes}.")
    facts = {"tokenizer": weights_key(tokenizer), "data": describe(view)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / key
    if not (place / "table.json").exists():
        if not build:
            raise AnimegenError(f"There is no table of codes at '{place}': the first process has to make it.")
        _make(place, tokenizer, view, facts)
    return _read(place, facts, view, tokenizer.codes)


def _read(place: Path, facts: dict[str, Any], view: ClipsView, limit: int) -> CodeTable:
    advice = f"remove the folder '{place}', and it is made again"
    found = read_json(place / "table.json", "a table of codes", advice)
    codes = load_array(place / "codes.npy", "a table of codes", advice)
    if not isinstance(found, dict) or {name: found.get(name) for name in facts} != facts:
        raise AnimegenError(f"The codes in '{place}' were made by another tokenizer or of other clips: {advice}.")
    lengths = [view.clips.length(index) for index in range(len(view.clips))]
    if codes.dtype != np.uint16 or codes.ndim != 4 or codes.shape[:2] != (2, sum(lengths)):
        raise AnimegenError(f"The table of codes in '{place}' is damaged ({codes.dtype} {codes.shape}): {advice}.")
    codes = np.array(codes)
    if codes.max(initial=0) >= limit:
        raise AnimegenError(f"The table of codes in '{place}' is damaged, it holds {codes.max()} of {limit}: {advice}.")
    return CodeTable(torch.from_numpy(codes.view(np.int16)), torch.tensor(lengths))


def _make(place: Path, tokenizer: Tokenizer, view: ClipsView, facts: dict[str, Any]) -> None:
    clips = view.clips
    total = sum(clips.length(index) for index in range(len(clips)))
    height, width = (side // tokenizer.factor for side in view.shape)
    log.info("encoding %d frames of %d clips, as they are and mirrored", total, len(clips))
    with completed(place / "codes.npy") as partial:
        table = np.lib.format.open_memmap(partial, "w+", np.uint16, (2, total, height, width))
        position = 0
        for index in range(len(clips)):
            frames = _frames(view, index)
            for start in range(0, len(frames), _CHUNK):
                chunk = frames[start : start + _CHUNK]
                for mirror, pictures in enumerate((chunk, chunk.flip(-1))):
                    found = encode(tokenizer, pictures).to(torch.int32).cpu().numpy()
                    table[mirror, position : position + len(chunk)] = found.astype(np.uint16)
                position += len(chunk)
        table.flush()
        del table
    with completed(place / "table.json") as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n")


@torch.no_grad()
def encode(tokenizer: Tokenizer, frames: Tensor) -> Tensor:
    """Return the codes (N,h,w) of frames, uint8 (N,3,H,W), in full precision, on the tokenizer's device."""
    device = tokenizer.last_layer.device
    with torch.autocast(device.type, enabled=False):
        return tokenizer.encode(to_float(frames.to(device)))


def _frames(view: ClipsView, index: int) -> Tensor:
    """Return all frames of a clip, uint8 (T,3,H,W); a broken one shows what is before it."""
    found = [view.frame(index, number) for number in range(view.clips.length(index))]
    good = [frame for frame in found if frame is not None]
    if not good:
        raise AnimegenError(
            f"No frame of the clip '{view.clips.name(index)}' can be read: the warnings above say why; remove it."
        )
    shown, frames = good[0], []
    for frame in found:
        shown = shown if frame is None else frame
        frames.append(shown)
    return torch.stack(frames)
