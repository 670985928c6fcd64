"""The ONNX that ONNX Runtime reads best."""

from __future__ import annotations

from objectives.quantization.dialect import Dialect
from objectives.quantization.rewrites import rewrite_dfl
from objectives.runtimes.onnxruntime.codes import rearrange_codes
from objectives.runtimes.onnxruntime.placement import OnnxRuntimePlacement

ONNXRUNTIME = Dialect(
    "ONNX Runtime",
    OnnxRuntimePlacement,
    rewrite_dfl,
    rearrange_codes,
    half_weights=True,
    unpacked_at_load=True,
    saturates=True,
)
