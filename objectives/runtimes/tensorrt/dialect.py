"""The ONNX that each TensorRT reads: strongly typed in fp16 from version 10 on, a float32 graph before."""

from __future__ import annotations

from dataclasses import replace

import onnx

from objectives.quantization.dialect import Dialect
from objectives.quantization.rewrites import join_splits
from objectives.runtimes.support import SupportKind
from objectives.runtimes.tensorrt.placement import TensorRtPlacement
from objectives.runtimes.tensorrt.rules import parse_capability, refusal, strongly_typed, support
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


#: The strongly typed graph in float32, for ONNX Runtime: its fp16 QuantizeLinear truncates (1.24), and its weights
#: would be unpacked at every inference.
EMULATED = replace(
    STRONGLY_TYPED,
    name="TensorRT, emulated",
    half_graph=False,
    flat_blocks=False,
    unpacked_at_load=True,
    saturates=True,
)


def dialect_of(version: str, capability: str | None = None) -> Dialect:
    """The dialect of a TensorRT version.

    Args:
        version: E.g. ``10.13``.
        capability: Compute capability of the GPU, e.g. ``8.9``; None where any will do.

    Raises:
        InputError: It is not a version or capability.
    """
    made = STRONGLY_TYPED if strongly_typed(version) else WEAKLY_TYPED
    if capability is None:
        return made
    gpu = parse_capability(capability)
    return replace(made, refuses=lambda fmt: made.refuses(fmt) or _missing(fmt, version, gpu))


def _missing(fmt: Format, version: str, gpu: tuple[int, int]) -> str:
    found = support(fmt, version, gpu)
    return f"cannot be had: {found.text}; choose int8 or w8a16" if found.kind is SupportKind.IMPOSSIBLE else ""
