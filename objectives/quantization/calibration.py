"""Calibration: the ranges of all activations, in one streamed pass over the calibration images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.histogram import METHODS, Histogram
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError, nearest
from search_spaces.model_graph import ModelGraph
from search_spaces.reading import parse_json, record_of

# Their output values are a subset of their input values, so they need no range of their own.
PASS_THROUGH = (
    "MaxPool",
    "Resize",
    "Transpose",
    "Reshape",
    "Split",
    "Slice",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
)


@dataclass(frozen=True)
class CalibrationTable:
    """Clipping ranges by method and tensor.

    Attributes:
        model: Digest of the model file.
        method: The method that `range` uses.
        images: Number of calibration images.
        ranges: ``{method: {tensor: (low, high)}}``; every range contains 0.
    """

    model: str
    method: str
    images: int
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]

    def range(self, tensor: str) -> tuple[float, float]:
        """Range ``(low, high)`` of a tensor by the chosen method."""
        return self.ranges[self.method][tensor]

    def with_method(self, method: str) -> CalibrationTable:
        """The same table read by another method.

        Raises:
            InputError: `method` is unknown.
        """
        return CalibrationTable(self.model, check_method(method), self.images, self.ranges)

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
        bounds = [bound for found in table.ranges.values() for pair in found.values() for bound in pair]
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
    probe.CopyFrom(graph.model)
    known = set(graph.outputs)
    # Without a type: of what comes after an operator of another domain, only the runtime knows it.
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in tensors if name not in known and name != graph.input
    )
    histograms = {name: Histogram() for name in tensors}
    count = 0
    with OnnxRuntimeRunner(probe.SerializeToString(), threads=threads) as runner:
        names = runner.output_names
        for image in images:
            for name, values in zip((graph.input, *names), (image, *runner.infer(image)), strict=True):
                if name in histograms and values.dtype == np.float32 and values.size:
                    try:
                        histograms[name].add(values)
                    except ValueError as error:
                        raise InputError(
                            f"{graph.path}: tensor {name!r} {error} on calibration image {count}"
                        ) from None
            count += 1
            if progress:
                progress(count)
    if not count:
        raise InputError("calibration: no image; list at least one in data.calibration")
    found = {name: histogram for name, histogram in histograms.items() if histogram.filled}
    ranges = {m: {name: h.range(m) for name, h in found.items()} for m in METHODS}
    return CalibrationTable(graph.digest, method, count, ranges)


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
