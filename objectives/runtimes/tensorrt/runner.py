"""One TensorRT engine as a runner: it infers through page-locked buffers and times itself on the device.

Imports ``cuda.bindings``; only the TensorRT path may import this module. Which TensorRT it is, is told: the bindings
``tensorrt`` and ``tensorrt_rtx`` have the same interface.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.devices.cuda import CudaError, DeviceBuffer, DeviceMemoryError, Graph, Span, Stream
from objectives.runners.runner import Ticket

_WARM = 3  # plain runs before capture: the first one allocates and loads kernels, which cannot be captured
_PROFILED = 20


class Bindings(Protocol):
    """A TensorRT as Python sees it."""

    @property
    def module(self) -> Any:
        """``tensorrt``, or a package of the same interface."""

    def runtime(self) -> Any:
        """A new ``Runtime`` of the module, ready to load engines."""

    def context(self, engine: Any) -> Any:
        """A new execution context of an engine; None where memory does not suffice."""


class TensorRtRunner:
    """One engine with one execution context.

    Several threads may call `infer`; they take turns on the device, while their work on the host overlaps.

    Args:
        bindings: Which TensorRT it is.
        plan: File of an engine that this user built.
        stream: All engines that are timed against each other share one, so that their work never overlaps.
        outputs: Names of the outputs in graph order; by default the engine's own order.
    """

    burst = 32

    def __init__(self, bindings: Bindings, plan: Path, stream: Stream, outputs: Sequence[str] = ()) -> None:
        self._bindings = bindings
        self._trt = bindings.module
        self._plan = plan
        self._wanted = tuple(outputs)
        self._stream = stream
        self._turn = threading.Lock()
        self._buffers: dict[str, DeviceBuffer] = {}
        self._spans: list[Span] = []
        self._graph: Graph | None = None
        self._engine: Any = None
        self._context: Any = None

    def activate(self) -> None:
        """Loads the engine, allocates its buffers and captures one inference as a CUDA graph.

        Raises:
            DeviceMemoryError: The GPU has too little free memory.
            CudaError: CUDA failed.
        """
        self._stream.use()
        self._runtime = self._bindings.runtime()
        self._engine = self._runtime.deserialize_cuda_engine(self._plan.read_bytes())
        if self._engine is None:
            raise DeviceMemoryError(f"{self._plan.name}: TensorRT cannot load the engine that it built")
        self._context = self._bindings.context(self._engine)
        if self._context is None:
            raise DeviceMemoryError(f"{self._plan.name}: too little GPU memory for the engine's context")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._outputs = self._wanted or tuple(name for name in names if name not in inputs)
        for name in names:
            shape = tuple(self._engine.get_tensor_shape(name))
            buffer = DeviceBuffer(shape, self._trt.nptype(self._engine.get_tensor_dtype(name)))
            self._buffers[name] = buffer
            self._context.set_tensor_address(name, buffer.address)
        for _ in range(_WARM):
            self._enqueue()
        self._stream.wait()
        try:
            self._graph = self._stream.capture(self._enqueue)
        except CudaError:
            self._graph = None  # an engine that waits for the host inside cannot be captured; `method` says so

    def deactivate(self) -> None:
        """Frees everything on the device."""
        if self._graph is not None:
            self._graph.free()
        for span in self._spans:
            span.free()
        for buffer in self._buffers.values():
            buffer.free()
        self._graph, self._spans, self._buffers = None, [], {}
        self._context = self._engine = None

    def __enter__(self) -> TensorRtRunner:
        try:
            self.activate()
        except BaseException:
            self.deactivate()  # nothing else gives back what it has taken by then
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, 3, H, W)``."""
        return self._buffers[self._input].host.shape

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in graph order."""
        return self._outputs

    @property
    def method(self) -> str:
        """How it times: ``cuda graph``, or ``cuda stream`` where the engine cannot be captured."""
        return "cuda graph" if self._graph is not None else "cuda stream"

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Runs one batch of exactly `input_shape`, float32, and returns the outputs in graph order."""
        with self._turn:
            self._stream.use()
            self._upload(images)
            self._run()
            for name in self._outputs:
                self._buffers[name].download(self._stream)
            self._stream.wait()
            return tuple(self._buffers[name].host.astype(np.float32) for name in self._outputs)

    def launcher(self, image: NDArray[np.float32]) -> Callable[[], Ticket]:
        """Uploads a batch; the result starts one inference of it and returns its ticket.

        At most `burst` tickets may be open at once; copies are not part of the time.
        """
        self._upload(image)
        self._stream.wait()
        while len(self._spans) < self.burst:
            self._spans.append(Span())
        turn = 0

        def launch() -> Ticket:
            nonlocal turn
            span = self._spans[turn % self.burst]
            turn += 1
            span.begin(self._stream)
            self._run()
            span.end(self._stream)
            return span.seconds

        return launch

    def layer_times(self) -> dict[str, float]:
        """``{engine layer: median milliseconds}``, profiled layer by layer; their sum exceeds one inference's time."""
        times: dict[str, list[float]] = {}
        self._context.profiler = _profiler(self._trt, times)
        for _ in range(_PROFILED):
            self._enqueue()
            self._stream.wait()
        # An empty profiler, as a context cannot be left without one again.
        self._context.profiler = _profiler(self._trt, {})
        return {name: float(np.median(found)) for name, found in times.items()}

    @cached_property
    def inspection(self) -> list[dict[str, Any]]:
        """What the engine inspector says of every layer."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        # TensorRT 8.6 writes line breaks into strings, which strict JSON forbids.
        layers = json.loads(text, strict=False)["Layers"]
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in layers]

    @property
    def plan_bytes(self) -> int:
        """Size of the plan."""
        return self._plan.stat().st_size

    def _upload(self, images: NDArray[np.float32]) -> None:
        buffer = self._buffers[self._input]
        if images.shape != buffer.host.shape:
            raise ValueError(f"the engine takes {buffer.host.shape}, not {images.shape}")
        np.copyto(buffer.host, images, casting="same_kind")
        buffer.upload(self._stream)

    def _run(self) -> None:
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise CudaError(f"{self._plan.name}: TensorRT could not start an inference")


def _profiler(trt: Any, times: dict[str, list[float]]) -> Any:
    """A profiler that adds to `times` what TensorRT reports, by engine layer, milliseconds."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # tensorrt ships no types
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    return Profiler()
