"""The temporal filter that a model's frames went through while it learnt, for the films that it is applied to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animegen.config.instantiate import build
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.engine.checkpoint import check_targets


def learnt_filter(config: dict[str, Any] | None, checkpoint: Path) -> tuple[BilateralFilter | None, Any]:
    """Return the filter of the training frames, and its settings; ``None`` for both if they were not filtered.

    Args:
        config: of the run, as the checkpoint holds it.
        checkpoint: where it comes from, for messages.

    Raises:
        AnimegenError: if the configuration names anything but a filter and a flow estimator of animegen.
    """
    node = ((config or {}).get("data") or {}).get("prefilter")
    if not node:
        return None, None
    # A configuration may come from anybody, as in `load_model`.
    check_targets(
        {key: value for key, value in node.items() if key != "flow"}, checkpoint, ("animegen",), BilateralFilter
    )
    check_targets(node.get("flow"), checkpoint, ("animegen.media.video.flow",), object)
    return build(node, f"the filter of '{checkpoint}'"), node
