"""What fp16 cannot hold of a model: the nodes that stay float32 in a strongly typed graph, each with its reason.

A node stays where it reads or makes a tensor whose values reach beyond fp16, lie closer together than fp16's steps at
their magnitude, or are divided by though fp16 has hardly a digit for them; or where a constant, an epsilon or a weight
of its own is lost. Only what was measured on the calibration images and what the file holds decide.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.divisors import computed_from, divided_by
from objectives.quantization.float_nodes import FloatNode, FullPrecision
from objectives.quantization.half_constants import (
    CENTRED,
    LARGEST,
    NORMAL,
    ROUNDING,
    allowed_step,
    channel_norms,
    half,
    hidden_sum,
    lost,
    lost_epsilon,
)
from objectives.quantization.movers import PASS_THROUGH, root
from search_spaces.model_graph import ModelGraph
from search_spaces.normalisations.folding import LAYER_OPS

#: Other images may reach further than the calibration's.
_HEADROOM = 2.0
#: fp16's step may be this share of what a tensor's values carry: half of it is the largest rounding error.
_STEP = 2.0**-8
#: The same where nothing is known to take an offset away.
_COARSE = 2.0**-5
# They copy elements of their inputs, of several into one.
_COPIES = ("Concat", "Gather", "GatherElements", "GatherND", "Pad", "Expand", "Identity", "Tile", "Where", "TopK",
           "DepthToSpace", "SpaceToDepth", "Dropout", "ReduceMax", "GlobalMaxPool", "Max")  # fmt: skip
# A step of their input is a step of their result, however small that is.
_ADDITIVE = ("Add", "Sub", "Sum", "Mod", "Sin", "Cos")
_SCALES = ("Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Neg", "Abs", "AveragePool", "GlobalAveragePool", "ReduceMean")


def full_precision(graph: ModelGraph, table: CalibrationTable, known: Collection[str] = ()) -> FullPrecision:
    """Finds what fp16 cannot hold.

    Args:
        graph: The unquantized float32 model.
        table: Ranges of its activations; of no images where nothing was measured.
        known: Nodes that stay float32 anyway; they are not named again.
    """
    found = _Search(graph, table)
    found.run()
    nodes = []
    for node in graph.nodes():
        if node.name not in known and node.op_type != "Shape" and (reason := found.reason(node)) is not None:
            nodes.append(FloatNode(node.name, *reason))
    missing = ""
    if not table.images:
        seen = " but noise" if table.extremes else ""
        missing = f"ranges of activations on images{seen}; `tuner materialize` and studies calibrate on yours"
    elif table.extremes is None:
        missing = "offsets and divisors: the ranges were measured by an earlier version; calibrate again in a new run"
    names = [graph.input, *graph.producer]
    tensors = {name: found.tensors[source] for name in names if (source := root(graph, name)) in found.tensors}
    return FullPrecision(tuple(nodes), tensors, missing)


class _Search:
    """One run of `full_precision`."""

    def __init__(self, graph: ModelGraph, table: CalibrationTable) -> None:
        self._graph = graph
        self._table = table
        self.tensors: dict[str, str] = {}  # by root
        self._nodes: dict[str, tuple[str, str]] = {}
        self._wanted: dict[str, float] = {}

    def run(self) -> None:
        """Marks tensors and nodes."""
        self._look_at(self._graph.input)
        for node in self._graph.nodes():
            if node.op_type not in PASS_THROUGH:
                for name in node.output:
                    self._look_at(name)
            self._look_at_sums(node)
            self._look_at_constants(node)
            self._look_at_divisor(node)
            if (found := lost_epsilon(node, self._graph.initializers)) is not None:
                self._keep(node, *found)
            self._look_inside(node)
        before = -1
        while len(self.tensors) > before:
            before = len(self.tensors)
            for node in self._graph.nodes():
                self._copy(node)

    def reason(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The tensor for whose sake a node stays float32, and why; None where it need not."""
        for name in (*node.input, *node.output):
            source = root(self._graph, name)
            if source in self.tensors:
                return source, self.tensors[source]
        return self._nodes.get(node.name)

    def _look_at(self, tensor: str) -> None:
        bounds = self._bounds(tensor)
        if bounds is None:
            return
        low, high = bounds
        top, spread = max(-low, high), high - low
        if top * _HEADROOM > LARGEST:
            self.tensors.setdefault(tensor, f"reaches {top:.3g} (fp16 ends at {LARGEST:.0f})")
        elif self._table.extremes is not None and top:
            carries = spread or top
            share = _STEP if top < NORMAL else _COARSE
            self._need(tensor, share * carries, f"carries {carries:.3g} at {top:.3g}")

    def _look_at_sums(self, node: onnx.NodeProto) -> None:
        """Sums that nearly cancel: their terms' steps are large beside the result."""
        bounds = self._bounds(node.output[0]) if self._table.extremes is not None else None
        if bounds is None or not any(bounds):
            return
        low, high = bounds
        top = max(-low, high)
        if node.op_type in _ADDITIVE:
            for name in node.input:
                self._need(name, _STEP * top, f"is a term of {node.output[0]!r}, which only reaches {top:.3g}")
                constant = self._constant(name)
                if constant is not None and np.abs(half(constant) - constant).max(initial=0) > _STEP * top:
                    self._keep(node, name, f"changes by fp16's steps, and the result only reaches {top:.3g}")
        elif node.op_type == "Cast" and self._bounds(node.input[0]) is None:
            self._need(node.output[0], 1.0, f"holds whole numbers to {top:.0f}")
        elif node.op_type in LAYER_OPS:
            self._look_at_layer(node, top, high - low or top)
        elif node.op_type in CENTRED:
            bear = allowed_step(node, self._graph.initializers, self._bounds(node.input[0]) or (0.0, 0.0), high - low)
            self._need(node.input[0], bear, f"is centred by {node.name!r}")
        elif node.op_type in ("Sqrt", "Pow"):
            self._look_at_root(node, top)

    def _look_at_layer(self, node: onnx.NodeProto, top: float, spread: float) -> None:
        """What a layer's sums make of the rounding of its input, weight and bias."""
        bias = self._constant(node.input[2]) if len(node.input) > 2 else None
        partial = top + np.abs(bias).max(initial=0) if bias is not None else top
        if bias is not None and (partial * _HEADROOM > LARGEST or _step(partial) > _STEP * top):
            self._keep(node, node.input[2], f"takes sums of {partial:.3g} to {top:.3g}")
        for name, data in (node.input[:2], node.input[1::-1]):
            weight, given = self._constant(data), self._bounds(name)
            if weight is None or given is None:
                continue
            size, error = channel_norms(node, weight)
            if error * max(-given[0], given[1]) > _STEP * spread:
                self._keep(node, data, "is rounded by more than the result bears")
            if size:  # rounding is even over a step: its deviation is 0.29 of it
                self._need(name, _STEP * spread / (0.29 * size), f"is summed by {node.name!r} to {spread:.3g}")

    def _look_at_root(self, node: onnx.NodeProto, top: float) -> None:
        """Roots of values near zero, whose rounding they enlarge."""
        power = self._constant(node.input[1]) if node.op_type == "Pow" else np.full(1, 0.5, np.float32)
        bounds = self._bounds(node.input[0])
        if power is None or bounds is None or not (np.all(power > 0) and np.any(power < 1)):
            return
        if bounds[0] < NORMAL and ROUNDING ** float(power.min()) > _STEP * top:
            self._widen(node.input[0], f"is rounded by up to {ROUNDING:.0e}, and its root only reaches {top:.3g}")

    def _look_at_constants(self, node: onnx.NodeProto) -> None:
        layer = node.op_type in LAYER_OPS
        for index, name in enumerate(node.input):
            values = self._constant(name)
            if values is None or (node.op_type == "Resize" and index in (1, 2)):
                continue
            top = np.abs(values).max(initial=0)
            if top > LARGEST:
                self._keep(node, name, f"reaches {top:.3g} (fp16 ends at {LARGEST:.0f})")
            elif lost(values, whole=layer or name != divided_by(self._graph, node)):
                self._keep(node, name, f"is lost in fp16, of at most {top:.3g}")
                if not self._table.extremes and not layer:
                    self._widen(node.output[0], f"holds what fp16 loses of {name!r}")

    def _look_at_divisor(self, node: onnx.NodeProto) -> None:
        tensor = divided_by(self._graph, node)
        queue = [root(self._graph, tensor)] if tensor is not None else []
        while queue:
            name = queue.pop()
            least = (self._table.least or {}).get(name, np.inf)
            if name in self.tensors or least >= NORMAL:
                continue
            self.tensors[name] = f"comes down to {least:.3g} and is divided by (fp16 loses digits below {NORMAL:.1e})"
            # What a layer makes is no more precise than its own sum, small or not.
            sources = computed_from(self._graph, name)
            queue += [source for source in sources if self._maker(source) not in LAYER_OPS]

    def _look_inside(self, node: onnx.NodeProto) -> None:
        """What is computed between a node's inputs and its result, and read by graphs within it."""
        bounds = self._bounds(node.input[0]) if node.input else None
        if bounds is not None:
            shape = self._graph.shapes.get(node.input[0], ())
            if (size := hidden_sum(node, shape, bounds)) * _HEADROOM > LARGEST:
                self._keep(
                    node, node.input[0], f"is summed to as much as {size:.3g} within (fp16 ends at {LARGEST:.0f})"
                )
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                for name in {name for step in inner.node for name in step.input}:
                    if name in self._graph.producer or name == self._graph.input:
                        self._widen(name, f"is read by a graph within {node.name!r}")

    def _copy(self, node: onnx.NodeProto) -> None:
        """What is copied out of a tensor needs what the tensor does."""
        if node.op_type in _COPIES:
            found = next((s for name in node.input if (s := root(self._graph, name)) in self.tensors), None)
            if found is not None:
                self.tensors.setdefault(node.output[0], f"holds {found!r}, which {self.tensors[found]}")

    def _need(self, tensor: str, step: float, why: str) -> None:
        """Marks a tensor whose steps in fp16 would be larger than `step`, and what it is computed from likewise."""
        queue = [(tensor, step)]
        while queue:
            name, step = queue.pop()
            name = root(self._graph, name)
            bounds = self._bounds(name)
            if bounds is None or step >= self._wanted.get(name, np.inf):
                continue
            self._wanted[name] = step
            top = max(-bounds[0], bounds[1])
            if _step(top) <= step:
                continue
            self.tensors.setdefault(name, f"{why}, where fp16's steps are {_step(top):.2g}")
            maker = self._graph.producer.get(name)
            if maker is None or maker.op_type not in (*_COPIES, *_ADDITIVE, *_SCALES):
                continue
            for source in maker.input:
                reach = self._bounds(source)
                if reach is not None:
                    gain = max(-reach[0], reach[1]) / top if maker.op_type in _SCALES else 1.0
                    queue.append((source, step * gain))

    def _widen(self, tensor: str, reason: str) -> None:
        self.tensors.setdefault(root(self._graph, tensor), reason)

    def _keep(self, node: onnx.NodeProto, tensor: str, reason: str) -> None:
        self._nodes.setdefault(node.name, (tensor, reason))

    def _maker(self, tensor: str) -> str:
        node = self._graph.producer.get(tensor)
        return node.op_type if node is not None else ""

    def _constant(self, name: str) -> NDArray[np.float32] | None:
        values = self._graph.initializers.get(name)
        return values if values is not None and values.dtype == np.float32 else None  # type: ignore[return-value]

    def _bounds(self, tensor: str) -> tuple[float, float] | None:
        """Least and greatest value of an activation; None where it was not measured."""
        name = root(self._graph, tensor)
        found = self._table.extremes if self._table.extremes is not None else self._table.ranges.get("max", {})
        return found.get(name)


def _step(top: float) -> float:
    """fp16's step at a magnitude."""
    return float(np.spacing(np.float16(min(top, LARGEST / 2))))
