"""A model at another opset."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from search_spaces.errors import InputError


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
    try:
        found = onnx.version_converter.convert_version(_legible(model), opset)
        onnx.checker.check_model(found, full_check=True)
    except Exception as error:  # the converter raises plain RuntimeErrors of C++
        raise InputError(
            f"{path}: opset {own} cannot be brought to {opset} ({str(error).strip().splitlines()[0]}); {remedy}"
        ) from None
    return found


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
