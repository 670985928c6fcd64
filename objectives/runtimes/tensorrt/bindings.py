"""The package ``tensorrt``, as its runner takes it. Imports it; only the TensorRT path may import this module."""

from __future__ import annotations

from typing import Any

import tensorrt as trt
from polygraphy.backend.trt import get_trt_logger


class TensorRtBindings:
    """``tensorrt`` 8.6 to 11."""

    module: Any = trt

    def runtime(self) -> Any:
        """A runtime that writes to Polygraphy's logger, as the builder does: a process has one."""
        logger = get_trt_logger()
        # Plugins are part of TensorRT 8's deserialization even where an engine has none.
        trt.init_libnvinfer_plugins(logger, "")
        return trt.Runtime(logger)

    def context(self, engine: Any) -> Any:
        """A context with memory of its own."""
        return engine.create_execution_context()
