"""Trace a network into segments that end where it averages over the whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from animegen.tiling.reductions import Reduction, split_group_norm


class TilingError(ValueError):
    """The network cannot run in tiles with an exact result; the message says why."""


@dataclass(frozen=True)
class Segment:
    """A part of a network between two reductions over the whole image.

    Its values are identified by the nodes of the traced graph. Feature maps depend on the position in the image; all
    other values (weights, statistics and values derived from them) are the same for all tiles.

    Attributes:
        common: computes ``common_outputs`` from ``common_inputs``, once per image.
        local: computes ``writes`` and ``result`` from ``reads`` and ``common_reads``, for one tile.
        reads: feature maps of earlier segments.
        writes: feature maps that later segments read.
        result: feature map that is reduced, or the network's output in the last segment.
        reduction: the reduction that ends the segment; ``None`` in the last one.
        reduced: value of the reduction.
    """

    common: fx.GraphModule
    common_inputs: list[fx.Node]
    common_outputs: list[fx.Node]
    local: fx.GraphModule
    reads: list[fx.Node]
    common_reads: list[fx.Node]
    writes: list[fx.Node]
    result: fx.Node
    reduction: Reduction | None
    reduced: fx.Node | None

    def prepare(self, values: dict[fx.Node, Any]) -> None:
        """Add the values that all tiles share to ``values``."""
        results = self.common(*[values[node] for node in self.common_inputs])
        values.update(zip(self.common_outputs, results, strict=True))

    def run(self, windows: Iterable[Tensor], values: dict[fx.Node, Any]) -> tuple[list[Tensor], Tensor]:
        """Compute one tile from its windows of ``reads``; return ``writes`` and ``result``."""
        *written, result = self.local(*windows, *[values[node] for node in self.common_reads])
        return written, result


@torch.no_grad()
def trace(network: Callable[[Tensor], Tensor], images: Tensor) -> list[Segment]:
    """Trace a network for images of one size, without computing anything.

    Autocast, if it is on, becomes part of the graph. Weights are referenced, not copied.

    Args:
        network: maps ``(B,C,H,W)`` to a tensor.
        images: an input; size, memory format, type and device count.

    Raises:
        TilingError: if its graph depends on the values of its activations, or it cannot be traced.
    """
    try:
        module = make_fx(network, None, "fake", _allow_non_fake_inputs=True)(images)
    except RuntimeError as error:
        raise TilingError(f"it cannot be traced ({' '.join(str(error).split())[:120]})") from error
    maps: set[fx.Node] = set()
    parts = [_Part()]
    output: Any = None
    for node in module.graph.nodes:
        part = parts[-1]
        if node.op == "placeholder":
            maps.add(node)
        elif node.op == "output":
            output = node.args[0]
        elif node.target is torch.ops.aten._local_scalar_dense.default:
            raise TilingError("it uses values of its activations in Python")
        elif not maps.intersection(node.all_input_nodes):
            part.common.append(node)
        elif (reduction := Reduction.of(node)) is not None:
            part.result, part.reduction, part.reduced = node.args[0], reduction, node
            parts.append(_Part())
            if reduction.groups is not None:
                split_group_norm(node)
        else:
            part.local.append(node)
            maps.add(node)
    if output not in maps:
        raise TilingError("its output does not depend on the position in the image")
    parts[-1].result = output
    return [part.segment(module, maps, parts[number + 1 :]) for number, part in enumerate(parts)]


class _Part:
    """The nodes of a segment."""

    def __init__(self) -> None:
        self.common: list[fx.Node] = []
        self.local: list[fx.Node] = []
        self.result: Any = None
        self.reduction: Reduction | None = None
        self.reduced: fx.Node | None = None

    @property
    def used(self) -> set[fx.Node]:
        """The nodes whose values the segment needs."""
        return {self.result}.union(*(node.all_input_nodes for node in [*self.common, *self.local]))

    def segment(self, module: fx.GraphModule, maps: set[fx.Node], later: list[_Part]) -> Segment:
        needed_later = set().union(*(part.used for part in later))
        common_inputs = _inputs(self.common)
        common_outputs = [node for node in self.common if node in needed_later | set(_inputs(self.local))]
        inputs = list(dict.fromkeys([*_inputs(self.local), self.result]))
        outside = [node for node in inputs if node not in self.local]
        reads, common_reads = ([node for node in outside if (node in maps) == is_map] for is_map in (True, False))
        writes = [node for node in self.local if node in needed_later]
        return Segment(
            _extract(module, common_inputs, self.common, common_outputs),
            common_inputs,
            common_outputs,
            _extract(module, [*reads, *common_reads], self.local, [*writes, self.result]),
            reads,
            common_reads,
            writes,
            self.result,
            self.reduction,
            self.reduced,
        )


def _inputs(nodes: list[fx.Node]) -> list[fx.Node]:
    """Return the nodes outside a list that those in it read."""
    inside = set(nodes)
    return list(dict.fromkeys(value for node in nodes for value in node.all_input_nodes if value not in inside))


def _extract(
    module: fx.GraphModule, inputs: list[fx.Node], nodes: list[fx.Node], outputs: list[fx.Node]
) -> fx.GraphModule:
    """Return a function of ``inputs`` that computes ``nodes`` and returns the values of ``outputs``."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(module, graph)
