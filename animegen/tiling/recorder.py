"""Record what a network computes, and play it back step by step on other pictures.

A recorded network can pause: between two steps nothing is held but the tensors that later steps
need. Tiled inference uses this to bring many tiles to the same normalisation layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from animegen.nn.norm import mean_and_variance, shared_statistics

Provider = Callable[[Tensor, tuple[int, ...]], tuple[Tensor, Tensor]]
"""``provider(x, dims)`` returns mean and biased variance of ``x`` over ``dims``, kept as dimensions of size 1."""

#: What turns a tensor into a value of Python, which a recording could not follow.
_READS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "equal", "__array__", "__bool__", "__int__", "__float__", "__index__")
} | {torch.equal, torch.allclose}


class TilingError(ValueError):
    """The network cannot run in tiles with an exact result; the text says why."""


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor that the network computes."""

    number: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor from outside, e.g. a weight; equal only to the very same one."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and other.tensor is self.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


@dataclass
class Call:
    """A call of a torch function; tensors in arguments and result are slots or constants."""

    function: Callable[..., Any]
    arguments: tuple
    options: dict[str, Any]
    result: Any
    #: Slots that no later step reads.
    frees: list[Slot] = field(default_factory=list)

    def run(self, values: dict[Slot, Tensor]) -> None:
        """Make the call with the tensors in ``values``, and store the result there."""
        arguments = _replace(self.arguments, values)
        result = self.function(*arguments, **_replace(self.options, values))
        _store(self.result, result, values)
        for slot in self.frees:
            values.pop(slot, None)


@dataclass
class Statistics:
    """A normalisation over the whole picture asks for the mean and variance of ``x``."""

    x: Slot
    dims: tuple[int, ...]
    mean: Slot
    variance: Slot
    frees: list[Slot] = field(default_factory=list)


@dataclass
class Tape:
    """The steps of a network from ``input`` to ``output``.

    Two tapes are equal if they do the same with the same weights. A network whose tapes of
    pictures of two sizes are equal can be played on any size.
    """

    steps: list[Call | Statistics]
    input: Slot
    output: Slot

    def __post_init__(self) -> None:
        """Find out after which step each tensor can go."""
        needed = {self.output}
        for step in reversed(self.steps):
            if isinstance(step, Statistics):
                reads, writes = {step.x}, {step.mean, step.variance}
            else:
                reads, writes = set(_slots((step.arguments, step.options))), set(_slots(step.result))
            step.frees = sorted((reads | writes) - needed, key=lambda slot: slot.number)
            needed |= reads | writes

    @property
    def normalisations(self) -> int:
        """Number of normalisations over the whole picture."""
        return sum(isinstance(step, Statistics) for step in self.steps)


def record(network: Callable[[Tensor], Tensor], images: Tensor, provider: Provider) -> tuple[Tape, Tensor]:
    """Run a network and record its steps.

    Args:
        network: maps ``(B,C,H,W)`` to a tensor.
        images: its input.
        provider: gives the statistics of normalisations over the whole picture; it may also
            change ``x`` in place. What it computes is not recorded.

    Returns:
        the tape and the network's output.

    Raises:
        TilingError: if the network computes with something else than recorded torch functions.
    """
    recorder = _Recorder(images, provider)
    with recorder, shared_statistics(recorder.statistics):
        output = network(images)
    if id(output) not in recorder.slots:
        raise TilingError("the network's output is not made by torch functions that can be recorded")
    return Tape(recorder.steps, Slot(0), recorder.slots[id(output)]), output


def whole_picture(x: Tensor, dims: Sequence[int]) -> bool:
    """Tell whether a normalisation over ``dims`` of ``x`` looks at all pixels, or at single ones."""
    axes = {dim % x.ndim for dim in dims}
    if x.ndim == 4 and {2, 3} <= axes and 0 not in axes:
        return True
    if x.ndim == 4 and not axes & {0, 2, 3}:
        return False
    raise TilingError(f"the network normalises a {x.ndim}-dimensional map over the dimensions {tuple(dims)}")


class _Recorder(TorchFunctionMode):
    """Sees every call of a torch function inside its ``with`` block."""

    def __init__(self, images: Tensor, provider: Provider) -> None:
        super().__init__()
        self.steps: list[Call | Statistics] = []
        self.slots: dict[int, Slot] = {}
        self.paused = False
        self._provider = provider
        # Keeps all tensors alive: the id of one that is gone could be given to another.
        self._tensors: list[Tensor] = []
        self._slot(images)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if func in _READS and any(id(value) in self.slots for value in args):
            raise TilingError(f"the network uses values of its activations in Python ({func.__name__})")
        arguments, options = self._known(args), self._known(kwargs)
        result = func(*args, **kwargs)
        made = self._made(result)
        # Sizes and types are not worth a step, but what returns nothing may change a tensor.
        if result is None or any(True for _ in _slots(made)):
            self.steps.append(Call(func, arguments, options, made))
        return result

    def statistics(self, module: object, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Serve a normalisation layer."""
        if not whole_picture(x, dims):
            return mean_and_variance(x, dims)
        if id(x) not in self.slots:
            raise TilingError("the network normalises something that is not made by recorded torch functions")
        self.paused = True
        mean, variance = self._provider(x, dims)
        self.paused = False
        self.steps.append(Statistics(self._slot(x), dims, self._slot(mean), self._slot(variance)))
        return mean, variance

    def _slot(self, tensor: Tensor) -> Slot:
        if id(tensor) not in self.slots:
            self.slots[id(tensor)] = Slot(len(self.slots))
            self._tensors.append(tensor)
        return self.slots[id(tensor)]

    def _known(self, value: Any) -> Any:
        return _map(value, lambda tensor: self.slots.get(id(tensor)) or Constant(tensor))

    def _made(self, value: Any) -> Any:
        return _map(value, self._slot)


def _map(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Copy nested tuples, lists and dicts with their tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple | list):
        items = [_map(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return value


def _replace(value: Any, values: dict[Slot, Tensor]) -> Any:
    """Copy recorded arguments with tensors for slots and constants."""
    if isinstance(value, Slot):
        return values[value]
    if isinstance(value, Constant):
        return value.tensor
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple | list):
        items = [_replace(item, values) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: _replace(item, values) for key, item in value.items()}
    return value


def _store(made: Any, result: Any, values: dict[Slot, Tensor]) -> None:
    """Store the tensors of a result in their slots."""
    if isinstance(made, Slot):
        values[made] = result
    elif isinstance(made, tuple | list):
        for slot, value in zip(made, result, strict=True):
            _store(slot, value, values)
    elif isinstance(made, dict):
        for key, slot in made.items():
            _store(slot, result[key], values)


def _slots(value: Any) -> Iterator[Slot]:
    """Yield all slots in nested tuples, lists and dicts."""
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _slots(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _slots(item)
