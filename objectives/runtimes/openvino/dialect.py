"""The ONNX that OpenVINO reads best."""

from __future__ import annotations

from objectives.quantization.dialect import Dialect
from objectives.runtimes.openvino.placement import OpenVinoPlacement
from objectives.runtimes.openvino.rewrites import rearranged

OPENVINO = Dialect("OpenVINO", OpenVinoPlacement, rearranged, half_weights=True, saturates=True)
