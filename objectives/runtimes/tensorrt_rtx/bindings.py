"""The package ``tensorrt_rtx`` as the engine's runner takes it; the kernels that it compiles here are kept in a file.

Imports ``tensorrt_rtx``; only its own folder may import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt_rtx as trt

from objectives.runtimes.tensorrt_rtx.build import LOG
from search_spaces.durable import durable_file


class TensorRtRtxBindings:
    """``tensorrt_rtx``: the second half of a build, for the very GPU, happens when a context is made.

    Args:
        cache: File of the kernels that were compiled so far, read before and written after.
    """

    module: Any = trt

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def runtime(self) -> Any:
        """A runtime."""
        return trt.Runtime(LOG)

    def context(self, engine: Any) -> Any:
        """A context; its inferences are captured as a CUDA graph by the runner, as those of TensorRT are."""
        config = engine.create_runtime_config()
        kernels = config.create_runtime_cache()
        if self._cache.is_file():
            kernels.deserialize(self._cache.read_bytes())  # of another version or GPU it takes nothing
        config.set_runtime_cache(kernels)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        context = engine.create_execution_context(config)
        if context is not None:
            with durable_file(self._cache, mode=0o600) as draft:
                draft.write_bytes(bytes(kernels.serialize()))
        return context
