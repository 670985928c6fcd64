"""Traces the columns of an output back to what made them: from which tensor, by which operators, in what range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx

from objectives.tasks.detection.heads.value_range import ANY, CHANGES, SHARE, Range
from search_spaces.model_graph import ModelGraph, attribute
from search_spaces.onnx_file import dims

_SAME = {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_SELECTIONS = {"Gather", "GatherElements", "GatherND"}
_DEPTH = 60


@dataclass(frozen=True)
class Columns:
    """Adjacent columns that were made alike.

    Attributes:
        source: The tensor at which the trace ends.
        maker: The operator that makes `source`, behind what only moves values; empty of a constant.
        start: The first of them in `source`.
        width: Their number.
        operators: What lies between `source` and the output, first to last, without what only moves values.
        range: Bounds of their values, as far as the operators tell.
    """

    source: str
    maker: str
    start: int
    width: int
    operators: tuple[str, ...] = ()
    range: Range = ANY

    @property
    def shares(self) -> bool:
        """Whether they lie in 0..1 or little beyond: probabilities, or coordinates as shares of the image."""
        return self.range[0] >= -0.5 and self.range[1] <= 1.5

    @property
    def probability(self) -> bool:
        """Whether they passed a Sigmoid, and nothing that leads out of 0..1."""
        return "Sigmoid" in self.operators and self.shares


def columns(graph: ModelGraph, tensor: str, axis: int) -> tuple[Columns, ...]:
    """Returns what the columns of a tensor are made of, in order; empty where their number is open.

    Args:
        graph: The model.
        tensor: A dense output.
        axis: Of its columns.
    """
    found = _Trace(graph)
    width = found.width(tensor, axis)
    return _merged(found.of(tensor, axis, width, _DEPTH)) if width else ()


def first(parts: Sequence[Columns], start: int, stop: int) -> tuple[Columns, ...]:
    """Returns columns `start` to `stop`, exclusive, of some parts."""
    found, at = [], 0
    for part in parts:
        low, high = max(start - at, 0), min(stop - at, part.width)
        if low < high:
            found.append(replace(part, start=part.start + low, width=high - low))
        at += part.width
    return tuple(found)


def boxes_are_shares(graph: ModelGraph, tensor: str, axis: int) -> bool:
    """Whether the first four columns of an output, a box, certainly lie within 0..1."""
    parts = first(columns(graph, tensor, axis), 0, 4)
    return bool(parts) and all(part.shares for part in parts)


class _Trace:
    """Goes back through one model, whose shapes may be open in places."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        values = (*graph.model.graph.value_info, *graph.model.graph.output)
        self._shapes = {value.name: dims(value) for value in values}

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Of a tensor; open sizes are 0, and it is empty where nothing is known."""
        return self._shapes.get(tensor, ())

    def width(self, tensor: str, axis: int) -> int:
        """Columns of a tensor; 0 where that is not known."""
        shape = self.shape(tensor)
        return shape[axis] if axis < len(shape) else 0

    def of(self, tensor: str, axis: int, width: int, depth: int) -> tuple[Columns, ...]:
        """The columns of a tensor, which has that many of them."""
        node = self._graph.producer.get(tensor)
        found = self._through(node, tensor, axis, width, depth - 1) if node is not None and depth else None
        if found:
            return found
        last = self._last_operator(tensor)
        operators, bounds = ((last,), SHARE) if last == "Sigmoid" else ((), SHARE if last == "Softmax" else ANY)
        return (Columns(tensor, last, 0, width, operators, bounds),)

    def _last_operator(self, tensor: str) -> str:
        """What made the values, where the trace ends because columns were mixed with another axis."""
        node = self._graph.producer.get(tensor)
        while node is not None and node.op_type in _SAME | _RESHAPES | {"Transpose"}:
            node = self._graph.producer.get(node.input[0])
        if node is None:
            return ""
        behind = {self._last_operator(name) for name in node.input} if node.op_type == "Concat" else set()
        return behind.pop() if len(behind) == 1 else node.op_type

    def _through(
        self, node: onnx.NodeProto, tensor: str, axis: int, width: int, depth: int
    ) -> tuple[Columns, ...] | None:
        """What lies behind a node that makes a tensor; None where the trace ends at it."""
        before, after = self.shape(node.input[0]) if node.input else (), self.shape(tensor)
        if not before or not after:
            return None
        if node.op_type == "Concat":
            return self._joined(node, axis, width, depth, int(attribute(node, "axis", 0)) % len(after) == axis)
        if node.op_type in ("Slice", "Split"):
            whole = self.width(node.input[0], axis)
            kept = self._sliced(node, before, axis) if node.op_type == "Slice" else self._split(node, tensor, axis)
            return first(self.of(node.input[0], axis, whole, depth), *kept) if kept and whole else None
        moved = _axis_before(node, before, after, axis)
        if moved is None:
            return self._arithmetic(node, after, axis, width, depth)
        return self.of(node.input[0], moved, width, depth) if _fits(before, moved, width) else None

    def _joined(self, node: onnx.NodeProto, axis: int, width: int, depth: int, own: bool) -> tuple[Columns, ...] | None:
        """Behind a Concat: of columns, one input of which may leave open how many it has; else of levels, all alike."""
        widths = [self.width(name, axis) for name in node.input] if own else [width]
        if widths.count(0) == 1:
            widths[widths.index(0)] = width - sum(widths)
        if sum(widths) != width or min(widths) < 1:
            return None
        pairs = zip(node.input, widths, strict=False)
        return tuple(part for name, each in pairs for part in self.of(name, axis, each, depth))

    def _sliced(self, node: onnx.NodeProto, before: Sequence[int], axis: int) -> tuple[int, int] | None:
        """The columns that a Slice keeps; None where they are not known, or not adjacent."""
        constants = self._graph.initializers
        given = [constants[name].reshape(-1).tolist() for name in node.input[1:] if name in constants]
        if len(given) != len(node.input) - 1 or len(given) < 2:
            return None
        axes = given[2] if len(given) > 2 else range(len(given[0]))
        steps = given[3] if len(given) > 3 else [1] * len(given[0])
        for start, end, which, step in zip(given[0], given[1], axes, steps, strict=True):
            if which % len(before) == axis:
                kept = range(before[axis])[start:end:step]
                return (kept.start, kept.stop) if step == 1 and kept else None
        return 0, before[axis]

    def _split(self, node: onnx.NodeProto, tensor: str, axis: int) -> tuple[int, int] | None:
        """The columns that one output of a Split holds."""
        shapes = [self.shape(name) for name in node.output]
        if any(axis >= len(shape) or not shape[axis] for shape in shapes):
            return None
        place = list(node.output).index(tensor)
        own = int(attribute(node, "axis", 0)) % len(shapes[0]) == axis
        start = sum(shape[axis] for shape in shapes[:place]) if own else 0
        return start, start + shapes[place][axis]

    def _arithmetic(
        self, node: onnx.NodeProto, after: Sequence[int], axis: int, width: int, depth: int
    ) -> tuple[Columns, ...] | None:
        """Behind an operator that works on each value by itself, with a constant or alone."""
        change, constants = CHANGES.get(node.op_type), self._graph.initializers
        data = [index for index, name in enumerate(node.input) if name and name not in constants]
        if change is None or len(data) != 1:
            return None
        shape = self.shape(node.input[data[0]])
        back = axis - (len(after) - len(shape))
        if back < 0 or not _fits(shape, back, width):
            return None
        others = [constants[name] for name in node.input if name in constants]
        bounds = [(float(value.min()), float(value.max())) for value in others if value.size]
        return tuple(
            replace(part, operators=(*part.operators, node.op_type), range=change(part.range, bounds, data[0]))
            for part in self.of(node.input[data[0]], back, width, depth)
        )


def _axis_before(node: onnx.NodeProto, before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """Where the axis is in the input of a node that only moves values, beyond its last if nowhere; None of others."""
    if node.op_type in _SAME:
        return axis
    if node.op_type == "Transpose":
        order: Sequence[int] = attribute(node, "perm", tuple(reversed(range(len(after)))))  # type: ignore
        return order[axis]
    if node.op_type in _RESHAPES:
        left, width = prod(after[:axis]), after[axis]
        places = [at for at, size in enumerate(before) if size == width and prod(before[:at]) == left]
        return places[0] if places else len(before)
    if node.op_type in _SELECTIONS:  # they pick rows; the columns stay the last axis
        own = node.op_type != "GatherND" and int(attribute(node, "axis", 0)) % max(1, len(before)) == len(before) - 1
        return len(before) if own or axis != len(after) - 1 else len(before) - 1
    return None


def _fits(shape: Sequence[int], axis: int, width: int) -> bool:
    return axis < len(shape) and shape[axis] in (width, 0)


def _merged(parts: Sequence[Columns]) -> tuple[Columns, ...]:
    """Joins neighbours that are alike and lie side by side in their source."""
    found: list[Columns] = []
    for part in parts:
        last = found[-1] if found else None
        alike = last is not None and replace(part, start=last.start, width=last.width) == last
        if last is not None and alike and part.start == last.start + last.width:
            found[-1] = replace(last, width=last.width + part.width)
        else:
            found.append(part)
    return tuple(found)
