"""The ONNX that each TensorRT reads: strongly typed in fp16 from version 10 on, a float32 graph before."""

from __future__ import annotations

import onnx

from objectives.quantization.dialect import Dialect
from objectives.quantization.rewrites import join_splits
from objectives.runtimes.tensorrt.placement import TensorRtPlacement
from objectives.runtimes.tensorrt.rules import refusal, strongly_typed
from search_spaces.formats import Format
from search_spaces.layers import Layer

_WEAK_OPSET = 17


def _joined(model: onnx.ModelProto, opset: int) -> None:
    join_splits(model)


def _unpacks_weak(layer: Layer, fmt: Format) -> bool:
    return fmt.weight != fmt.activation


def _refuses_weak(fmt: Format) -> str:
    return "needs TensorRT >= 10; choose int8 or fp16" if fmt.activation.opset > _WEAK_OPSET else ""


#: 19: from there on scales, and so the outputs of DequantizeLinear, may be fp16.
STRONGLY_TYPED = Dialect(
    "TensorRT >= 10",
    TensorRtPlacement,
    _joined,
    half_graph=True,
    scale_bytes=2,
    least_opset=19,
    export_opset=19,
    flat_blocks=True,
    refuses=refusal,
)
#: TensorRT 8.6 knows no opset above 17, and no fp8.
WEAKLY_TYPED = Dialect(
    "TensorRT 8.6",
    TensorRtPlacement,
    _joined,
    scale_bytes=4,
    highest_opset=_WEAK_OPSET,
    unpacks=_unpacks_weak,
    refuses=_refuses_weak,
)


def dialect_of(version: str) -> Dialect:
    """The dialect of a TensorRT version, e.g. ``10.13``.

    Raises:
        InputError: It is not a version.
    """
    return STRONGLY_TYPED if strongly_typed(version) else WEAKLY_TYPED
