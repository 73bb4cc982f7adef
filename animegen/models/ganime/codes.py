"""Table of the codes of all training clips, cached on disk; the transformer is trained on it instead of frames."""

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

#: Images per pass through the encoder: fixed, since another number could round differently.
_CHUNK = 16
#: Largest codebook: two bytes per code.
LIMIT = 2**16


class CodeTable:
    """The codes of all frames of all clips, and of their horizontally flipped versions if the data flip clips.

    Args:
        codes: (V,N,h,w) int16 with the bits of uint16: all frames of all clips in order; with V = 2, flipped ones at
            index 1.
        lengths: (clips,) int64, frames per clip.
    """

    def __init__(self, codes: Tensor, lengths: Tensor) -> None:
        self.codes, self.lengths = codes, lengths
        self.starts = lengths.cumsum(0) - lengths

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of codes of a frame."""
        return self.codes.shape[2], self.codes.shape[3]

    def to(self, device: torch.device) -> CodeTable:
        """Return the table on a device."""
        return CodeTable(self.codes.to(device), self.lengths.to(device))

    def take(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the codes of clips, int64 (B,T,h,w), on the device of the table.

        Args:
            batch: ``clip`` and ``mirror`` (B,), ``frames`` (B,T), int64, see :class:`~animegen.data.clips.ClipsView`.

        Raises:
            AnimegenError: if the batch holds frames, as during the training of the tokenizer.
        """
        if "clip" not in batch:
            raise AnimegenError(
                "The transformer is trained on clip numbers, but the batch holds frames: use data=clips/... with"
                " data.repeat_first_batch=false."
            )
        rows = self.starts[batch["clip"]].unsqueeze(1) + batch["frames"]
        return self.codes[batch["mirror"].unsqueeze(1), rows].long() & (LIMIT - 1)


def describe(view: ClipsView) -> dict[str, Any]:
    """Return plain values that identify the clips of a view.

    These are names, lengths and size of all clips, and a hash of the first and last frame of eight of them, which
    depends on all settings of the source, such as its look, seed or speed.
    """
    clips = view.clips
    count = len(clips)
    digest = hashlib.sha256()
    for index in sorted({count * k // 8 for k in range(8)}):
        for number in (0, clips.length(index) - 1):
            frame = view.frame(index, number)
            digest.update(b"broken" if frame is None else frame.contiguous().numpy().tobytes())
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
    """Return a hash of all weights and buffers of a tokenizer, except for the renderer, which may still be trained."""
    digest = hashlib.sha256()
    for name, value in sorted(tokenizer.state_dict().items()):
        if name.startswith("renderer."):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def code_table(folder: Path, tokenizer: Tokenizer, view: ClipsView, build: bool = True) -> CodeTable:
    """Return the table of codes of a view: read from ``folder``, or computed and written there.

    The files are ``codes.npy``, uint16 (versions, frames, h, w), and ``table.json`` in ``folder/<key>/``. The key is a
    hash of tokenizer and data. ``table.json`` is written last; a folder without it is incomplete and ignored.

    Args:
        folder: cache folder.
        tokenizer: the tokenizer in eval mode.
        view: a prepared view of clips.
        build: compute a missing table. ``False`` raises an error instead, for all processes but the first.

    Raises:
        AnimegenError: if the table is damaged, or belongs to another tokenizer or other data; if the codebook is too
            large for two bytes per code; if a table is missing and ``build`` is false.
    """
    if tokenizer.codes > LIMIT:
        raise AnimegenError(
            f"A table of codes supports at most {LIMIT} codes, but the codebook has {tokenizer.codes}: set fewer."
        )
    facts: dict[str, Any] = {"tokenizer": weights_key(tokenizer), "data": describe(view)}
    if not view.mirror:
        facts["versions"] = 1
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / key
    if not (path / "table.json").exists():
        if not build:
            raise AnimegenError(f"There is no table of codes at '{path}': the first process has to write it.")
        _write(path, tokenizer, view, facts)
    return _read(path, facts, view, tokenizer.codes)


def _read(path: Path, facts: dict[str, Any], view: ClipsView, limit: int) -> CodeTable:
    advice = f"remove the folder '{path}', and the table is computed again"
    found = read_json(path / "table.json", "a table of codes", advice)
    codes = load_array(path / "codes.npy", "a table of codes", advice)
    if not isinstance(found, dict) or {name: found.get(name) for name in facts} != facts:
        raise AnimegenError(f"The codes in '{path}' were made by another tokenizer or of other clips: {advice}.")
    lengths = [view.clips.length(index) for index in range(len(view.clips))]
    if codes.dtype != np.uint16 or codes.ndim != 4 or codes.shape[:2] != (_versions(view), sum(lengths)):
        raise AnimegenError(f"The table of codes in '{path}' is damaged ({codes.dtype} {codes.shape}): {advice}.")
    codes = np.array(codes)
    if codes.max(initial=0) >= limit:
        raise AnimegenError(f"The table of codes in '{path}' is damaged, it holds {codes.max()} of {limit}: {advice}.")
    return CodeTable(torch.from_numpy(codes.view(np.int16)), torch.tensor(lengths))


def _write(path: Path, tokenizer: Tokenizer, view: ClipsView, facts: dict[str, Any]) -> None:
    clips = view.clips
    total = sum(clips.length(index) for index in range(len(clips)))
    height, width = (side // tokenizer.size_divisor for side in view.shape)
    flipped = ", and their flipped versions" if view.mirror else ""
    log.info("encoding %d frames of %d clips%s", total, len(clips), flipped)
    with completed(path / "codes.npy") as partial:
        table = np.lib.format.open_memmap(partial, "w+", np.uint16, (_versions(view), total, height, width))
        position = 0
        for index in range(len(clips)):
            frames = _frames(view, index)
            for start in range(0, len(frames), _CHUNK):
                chunk = frames[start : start + _CHUNK]
                for mirror, images in enumerate((chunk, chunk.flip(-1))[: _versions(view)]):
                    found = encode(tokenizer, images).to(torch.int32).cpu().numpy()
                    table[mirror, position : position + len(chunk)] = found.astype(np.uint16)
                position += len(chunk)
        table.flush()
        del table
    with completed(path / "table.json") as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n")


def _versions(view: ClipsView) -> int:
    """Return how often each frame is in the table: as it is, and flipped if the view flips clips."""
    return 2 if view.mirror else 1


@torch.no_grad()
def encode(tokenizer: Tokenizer, frames: Tensor) -> Tensor:
    """Encode frames, uint8 (N,3,H,W), to codes (N,h,w) on the device of the tokenizer, in full precision."""
    device = tokenizer.last_layer.device
    with torch.autocast(device.type, enabled=False):
        return tokenizer.encode(to_float(frames.to(device)))


def _frames(view: ClipsView, index: int) -> Tensor:
    """Return all frames of a clip, uint8 (T,3,H,W); a broken frame is replaced by the one before it."""
    found = [view.frame(index, number) for number in range(view.clips.length(index))]
    good = [frame for frame in found if frame is not None]
    if not good:
        raise AnimegenError(
            f"No frame of the clip '{view.clips.name(index)}' can be read (see the warnings above): remove the clip."
        )
    current, frames = good[0], []
    for frame in found:
        current = current if frame is None else frame
        frames.append(current)
    return torch.stack(frames)
