"""Builds engines through Polygraphy: one way for TensorRT 8.6 to 11, with the flags of `tensorrt_rules`.

Imports ``tensorrt``; only the TensorRT path may import this module. Engines and timings are the device's: the caller
holds its lock.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorrt as trt
from polygraphy.backend.trt import (
    create_config,
    engine_bytes_from_network,
    get_trt_logger,
    network_from_onnx_bytes,
    postprocess_network,
)
from polygraphy.backend.trt import util as polygraphy_trt
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.owners import first_layer
from objectives.runtimes.tensorrt.build_log import read_build_errors
from objectives.runtimes.tensorrt.rules import BuilderSettings, build_flags, parse_version
from search_spaces.errors import InputError, nearest

_MIB = 2**20
_PAUSE_SECONDS = 0.02  # between two questions whether a measurement waits; the builder logs far more often
# Layers that compute; the others only move data and take the type of their neighbours.
_COMPUTING = ("ELEMENTWISE", "UNARY", "ACTIVATION", "SOFTMAX", "REDUCE", "SCALE", "CONVOLUTION", "MATRIX_MULTIPLY")


def build_engine(
    model: bytes,
    settings: BuilderSettings,
    timing_cache: Path,
    *,
    layers: Collection[str] = (),
    fp32_layers: Collection[str] = (),
    pause: Callable[[], None] = lambda: None,
) -> tuple[bytes, float]:
    """Builds one engine.

    Args:
        model: Serialized ONNX of this TensorRT's dialect.
        settings: Of the study.
        timing_cache: Read before and extended after the build, from TensorRT 10 on.
        layers: Names of the layers that may be named as the reason of a failure.
        fp32_layers: Nodes that must compute in fp32; only for networks that are not strongly typed.
        pause: Called between the builder's own measurements, when nothing of it runs on the device; may wait.

    Returns:
        The plan, and the seconds that the build took.

    Raises:
        BuildError: It cannot be built; names the layer where the log does.
        InputError: A tactic source is unknown.
    """
    flags = build_flags(trt.__version__)
    options: dict[str, Any] = {}
    if not flags.strongly_typed:
        # With this flag and no Q/DQ TensorRT would ask for a calibrator.
        options = {"fp16": flags.fp16, "int8": flags.int8 and b"QuantizeLinear" in model}
    if settings.workspace_mib is not None:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: settings.workspace_mib * _MIB}
    if settings.tactic_sources is not None:
        options["tactic_sources"] = [_tactic_source(name) for name in settings.tactic_sources]
    # TensorRT 8.6 cannot read its own cache back once a graph went through Myelin ("myelinCache.h::
    # deserializeFromBuffer"), neither from a file nor handed from one build to the next within a process.
    kept = timing_cache if parse_version(trt.__version__) >= (10, 0) else None
    start = time.perf_counter()
    with _errors() as errors, _pausing(pause):
        try:
            network = network_from_onnx_bytes(model, strongly_typed=flags.strongly_typed)
            if not flags.strongly_typed and fp32_layers:
                network = postprocess_network(network, lambda network: _keep_fp32(network, fp32_layers))

            def config(builder: Any, network: Any) -> Any:
                made = create_config(
                    builder,
                    network,
                    precision_constraints=flags.precision_constraints,
                    builder_optimization_level=settings.optimization_level,
                    profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
                    load_timing_cache=str(kept) if kept is not None and kept.is_file() else None,
                    **options,
                )
                made.avg_timing_iterations = settings.timing_iterations
                return made

            save = str(kept) if kept is not None else None
            plan = bytes(engine_bytes_from_network(network, config, save_timing_cache=save))
        except PolygraphyException as error:
            verdict = read_build_errors([*errors, str(error)], layers)
            raise BuildError(verdict.message, verdict.layer, verdict.memory) from None
    return plan, time.perf_counter() - start


def _tactic_source(name: str) -> Any:
    known = trt.TacticSource.__members__
    if name not in known:
        raise InputError(f"runtime.tactic_sources: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")
    return known[name]


def _keep_fp32(network: Any, names: Collection[str]) -> None:
    """Sets the precision of the computing layers that come from the named nodes."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name in _COMPUTING and first_layer(layer.name, names):
            layer.precision = trt.float32
            for output in range(layer.num_outputs):
                if layer.get_output(output).dtype in (trt.float32, trt.float16):
                    layer.set_output_type(output, trt.float32)


class _PausingLogger(trt.ILogger):  # type: ignore[misc]  # tensorrt ships no types
    """Passes TensorRT's lines on; the builder writes one after every tactic that it has timed, a moment to pause."""

    def __init__(self, base: Any, pause: Callable[[], None]) -> None:
        trt.ILogger.__init__(self)
        self._base = base
        self._pause = pause
        self._last = 0.0

    def log(self, severity: Any, message: str) -> None:
        """One line of TensorRT's log."""
        self._base.log(severity, message)
        now = time.monotonic()
        if now - self._last > _PAUSE_SECONDS:
            self._last = now
            self._pause()


@contextmanager
def _pausing(pause: Callable[[], None]) -> Iterator[None]:
    """Has Polygraphy give TensorRT a logger that pauses."""
    base = get_trt_logger()
    polygraphy_trt.TRT_LOGGER = _PausingLogger(base, pause)
    try:
        yield
    finally:
        polygraphy_trt.TRT_LOGGER = base


class _Collector(logging.Handler):
    """Keeps error lines, and passes them on to the process's output."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        print(record.getMessage(), file=sys.stderr, flush=True)


@contextmanager
def _errors() -> Iterator[list[str]]:
    """The error lines that TensorRT writes meanwhile; Polygraphy hands its log to Python's."""
    G_LOGGER.use_python_logging_system = True
    logger = logging.getLogger("Polygraphy")
    collector = _Collector()
    logger.addHandler(collector)
    try:
        yield collector.lines
    finally:
        logger.removeHandler(collector)
