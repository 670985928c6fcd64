"""The names of the project's own runtimes, for those that must not load any of them."""

from __future__ import annotations

from collections.abc import Mapping

#: ``{name: "module:class"}``.
BUILT_IN: Mapping[str, str] = {
    "onnxruntime-cpu": "objectives.runtimes.onnxruntime.runtime:OnnxRuntimeCpu",
    "onnxruntime-cuda": "objectives.runtimes.onnxruntime.runtime:OnnxRuntimeCuda",
    "openvino": "objectives.runtimes.openvino.runtime:OpenVino",
    "tensorrt": "objectives.runtimes.tensorrt.runtime:TensorRt",
    "tensorrt-rtx": "objectives.runtimes.tensorrt_rtx.runtime:TensorRtRtx",
    "replay": "objectives.runtimes.replay.runtime:ReplayRuntime",
}

#: Those that run models.
RUNNING = tuple(name for name in BUILT_IN if name != "replay")
