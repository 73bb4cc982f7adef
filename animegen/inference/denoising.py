"""The temporal filter of a model's training frames, applied to the videos that it processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animegen.config.trust import build_from
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.errors import AnimegenError

REMEDY = "Set prefilter=false to apply the model without it."


def learnt_filter(config: dict[str, Any] | None, checkpoint: Path) -> tuple[BilateralFilter | None, Any]:
    """Return the filter of the training frames, and its settings; ``None`` for both if they were not filtered.

    Args:
        config: configuration of the run in the checkpoint.
        checkpoint: path of the checkpoint, for messages.

    Raises:
        AnimegenError: if the configuration names anything but a filter and a flow estimator of animegen.
    """
    node = ((config or {}).get("data") or {}).get("prefilter")
    if not node:
        return None, None
    found = build_from(node, "data", f"The checkpoint '{checkpoint}'", REMEDY)
    if not isinstance(found, BilateralFilter):
        raise AnimegenError(f"The data of the checkpoint '{checkpoint}' have a prefilter of an unknown kind. {REMEDY}")
    return found, node
