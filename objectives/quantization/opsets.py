"""A model at another opset."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from search_spaces.errors import InputError

_LARGE = 4096  # bytes; scales, axes and sizes have far fewer


def at_opset(model: onnx.ModelProto, opset: int, path: Path, remedy: str) -> onnx.ModelProto:
    """Brings a model to another opset.

    Args:
        model: Not changed.
        opset: Of the default domain.
        path: For messages.
        remedy: What else helps.

    Raises:
        InputError: An operator has no counterpart there.
    """
    own = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    light, weights = _without_weights(model)
    try:
        found = onnx.version_converter.convert_version(_legible(light), opset)
        onnx.checker.check_model(found, full_check=True)
    except Exception as error:  # the converter raises plain RuntimeErrors of C++
        raise InputError(
            f"{path}: opset {own} cannot be brought to {opset} ({str(error).strip().splitlines()[0]}); {remedy}"
        ) from None
    given = {tensor.name for tensor in weights}
    inputs = [value for value in found.graph.input if value.name not in given]
    del found.graph.input[:]
    found.graph.input.extend(inputs)
    found.graph.initializer.extend(weights)
    return found


def _without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A model whose large floats are inputs, and these: no adapter reads them, and each is written out several times.

    Those of models before IR version 4 stand among the inputs already; they stay.
    """
    large = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.raw_data) > _LARGE]
    known = {value.name for value in model.graph.input}
    weights = [tensor for tensor in large if tensor.name not in known]
    names = {tensor.name for tensor in weights}
    light = onnx.ModelProto()
    light.CopyFrom(model)
    del light.graph.initializer[:]
    light.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in names)
    light.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights
    )
    return light, weights


def _legible(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with its integers in the field that onnx's converter reads.

    Of onnx 1.21, the adapters that turn an input into an attribute see nothing in ``raw_data``: a ReduceMean over two
    axes silently becomes one over all.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.INT64 and tensor.HasField("raw_data"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT64, values.shape, values.ravel().tolist()))
    return copy
