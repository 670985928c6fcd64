"""Calibration: the ranges of all activations, in one streamed pass over the calibration images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.decoding import decoding
from objectives.quantization.divisors import divisors
from objectives.quantization.histogram import METHODS, Histogram
from objectives.quantization.movers import PASS_THROUGH
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError, nearest
from search_spaces.limits import renew, step
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import without_plugins
from search_spaces.reading import parse_json, record_of

UNREACHED = (
    "calibration: none of the images reaches tensor {!r}: the model finds nothing in them; give images with objects "
    "(data.calibration), or leave its layers unquantized"
)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CalibrationTable:
    """Clipping ranges by method and tensor.

    Attributes:
        model: Digest of the model file.
        method: The method that `range` uses.
        images: Number of calibration images.
        ranges: ``{method: {tensor: (low, high)}}``; every range contains 0.
        extremes: ``{tensor: (least, greatest value seen)}``, which need not contain 0; None in a table of an earlier
            version.
        least: ``{tensor: least magnitude seen, zeros aside}`` of what `divisors` names; None likewise.
    """

    model: str
    method: str
    images: int
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]
    extremes: Mapping[str, tuple[float, float]] | None = None
    least: Mapping[str, float] | None = None

    def range(self, tensor: str) -> tuple[float, float]:
        """Range ``(low, high)`` of a tensor by the chosen method.

        Raises:
            InputError: No image had a value there: what a detector does with regions that it found nowhere.
        """
        known = self.ranges[self.method]
        if tensor not in known:
            raise InputError(UNREACHED.format(tensor))
        return known[tensor]

    def infinite(self, tensors: Iterable[str]) -> bool:
        """Whether one of some tensors, which only decode boxes, has reached infinity."""
        seen = [bound for name in tensors for bound in (self.extremes or {}).get(name, ())]
        return any(abs(bound) >= _LARGEST for bound in seen)

    def with_method(self, method: str) -> CalibrationTable:
        """The same table read by another method.

        Raises:
            InputError: `method` is unknown.
        """
        return replace(self, method=check_method(method))

    def to_json(self) -> str:
        """Returns the table as JSON text."""
        return json.dumps(vars(self))

    @staticmethod
    def from_json(text: str) -> CalibrationTable:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The text is not such a table.
        """
        name, remedy = "calibration table", "delete the file to calibrate again"
        table = record_of(CalibrationTable, parse_json(text, name, remedy), name, remedy)
        found = [*table.ranges.values(), table.extremes or {}]
        bounds = [bound for entry in found for pair in entry.values() for bound in pair]
        bounds += (table.least or {}).values()
        if table.method not in table.ranges or not np.isfinite(bounds).all():
            raise InputError(f"{name}: not one of ours: a range is missing or not finite; {remedy}")
        for method in table.ranges:
            check_method(method)
        return table


def check_method(method: str) -> str:
    """Returns `method` if it is a calibration method.

    Raises:
        InputError: It is not.
    """
    if method not in METHODS:
        raise InputError(f"calibration.method: {method!r} is not one of {', '.join(METHODS)}{nearest(method, METHODS)}")
    return method


def calibrate(
    graph: ModelGraph,
    images: Iterable[NDArray[np.float32]],
    method: str = "percentile",
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> CalibrationTable:
    """Runs the model once over the images and derives every tensor's range by every method.

    Args:
        graph: The unquantized model.
        images: Batches ``(1, 3, H, W)`` float32 in [0, 1]; read one at a time.
        method: The method that the table will use.
        progress: Called with the number of images done.
        threads: Threads of the inference; 0 leaves the choice to ONNX Runtime.

    Raises:
        InputError: No image, an unknown method, or an activation that is not finite.
    """
    check_method(method)
    tensors = activations(graph)
    probe = onnx.ModelProto()
    probe.CopyFrom(without_plugins(graph.model))
    made = {name for node in probe.graph.node for name in node.output}
    known = {value.name for value in probe.graph.output}
    # Without a type: of what comes after an operator of another domain, only the runtime knows it.
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name in made and name not in known)
    histograms = {name: Histogram() for name in tensors}
    decoders = decoding(graph)
    late = {name for node in graph.nodes() if node.name in decoders for name in node.output}
    least = dict.fromkeys((name for name in tensors if name in divisors(graph)), np.inf)
    count = 0
    running = step(graph.path, "calibration")
    with running, OnnxRuntimeRunner(probe.SerializeToString(), threads=threads) as runner:
        names = runner.output_names
        for image in images:
            for name, values in zip((graph.input, *names), (image, *runner.infer(image)), strict=True):
                if name in histograms and values.dtype == np.float32 and values.size:
                    # What overflows after all layers is a box larger than any image; NaN stays.
                    seen = np.clip(values, -_LARGEST, _LARGEST) if name in late else values
                    try:
                        histograms[name].add(seen)
                    except ValueError as error:
                        raise InputError(
                            f"{graph.path}: tensor {name!r} {error} on calibration image {count}"
                        ) from None
                if name in least:
                    least[name] = min(least[name], float(np.abs(values).min(where=values != 0, initial=np.inf)))
            count += 1
            renew()
            if progress:
                progress(count)
    if not count:
        raise InputError("calibration: no image; list at least one in data.calibration")
    found = {name: histogram for name, histogram in histograms.items() if histogram.filled}
    ranges = {m: {name: h.range(m) for name, h in found.items()} for m in METHODS}
    extremes = {name: (h.low, h.high) for name, h in found.items()}
    small = {name: value for name, value in least.items() if np.isfinite(value)}
    return CalibrationTable(graph.digest, method, count, ranges, extremes, small)


def activations(graph: ModelGraph) -> tuple[str, ...]:
    """Activations that need a range: the image input and every operator's output but pass-through ones.

    Those that are no floats are left out, as far as their types are known.
    """
    others = {
        value.name
        for value in (*graph.model.graph.value_info, *graph.model.graph.output)
        if value.type.tensor_type.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.FLOAT)
        or value.type.WhichOneof("value") not in (None, "tensor_type")
    }
    made = [
        name
        for node in graph.nodes()
        if node.op_type not in PASS_THROUGH
        for name in node.output
        if name and name not in others
    ]
    return (graph.input, *made)
