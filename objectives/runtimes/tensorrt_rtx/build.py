"""Builds engines ahead of time, on the CPU: no GPU, no driver.

Imports ``tensorrt_rtx``; only its own folder may import this module.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import tensorrt_rtx as trt

from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.owners import first_layer
from objectives.runtimes.tensorrt.build_log import read_build_errors
from objectives.runtimes.tensorrt_rtx.capability import Capability


class _Log(trt.ILogger):  # type: ignore[misc]  # tensorrt_rtx ships no types
    """Keeps what went wrong."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """One line of TensorRT-RTX's log."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)


#: A process has one logger: TensorRT-RTX goes on with the first that it was given.
LOG = _Log()


def build_engine(model: bytes, capability: Capability, layers: Collection[str] = ()) -> tuple[bytes, float]:
    """Builds one engine.

    Args:
        model: Serialized ONNX, strongly typed.
        capability: Of the GPU that is to run it.
        layers: Names of the layers that may be named as the reason of a failure.

    Returns:
        The plan, and the seconds that the build took.

    Raises:
        BuildError: It does not parse or cannot be built; names the layer where the parser or the log does.
    """
    start = time.perf_counter()
    LOG.errors.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(0)  # strongly typed: there is no other kind
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse(model):
        error = parser.get_error(0)
        node = error.node_name()
        where = f"node {node!r}: " if node else ""
        raise BuildError(f"does not parse: {where}{_line(error.desc())}", first_layer(node, layers))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, "SM{}{}".format(*capability)), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        verdict = read_build_errors([_line(error) for error in LOG.errors], layers)
        raise BuildError(verdict.message, verdict.layer, verdict.memory)
    return bytes(plan), time.perf_counter() - start


def _line(text: str) -> str:
    return " ".join(text.split())
