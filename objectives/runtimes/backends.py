"""The runtimes as the evaluator sees them: how a model is opened, what the device is called, who may disturb it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from objectives.devices.gpu import Gpu, GpuState, find_gpu, read_state
from objectives.devices.lock import device_lock, give_way
from objectives.quantization.placement import decoding
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runners.runner import Runner, RuntimeUnavailable
from objectives.runtimes.tensorrt.engine_cache import EngineCache
from objectives.runtimes.tensorrt.engine_report import EngineReport, read_engine
from objectives.runtimes.tensorrt.memory_places import fastest_place
from objectives.runtimes.tensorrt.rules import BuilderSettings, dialect
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

if TYPE_CHECKING:
    from objectives.runtimes.tensorrt.runner import TensorRtRunner

RUNTIMES = ("onnxruntime-cpu", "onnxruntime-cuda", "tensorrt")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Opened:
    """A model that is ready to infer.

    Attributes:
        runner: Active.
        build_seconds: Time of the engine's build; 0 where none was needed.
        place_spread: Time at the slowest place in the device's memory that was tried / time at the one that was kept.
    """

    runner: Runner
    build_seconds: float = 0.0
    place_spread: float = 1.0


class Backend(Protocol):
    """One runtime on one device.

    Attributes:
        dialect: The materializer's name of what it reads.
        device: Identifies the device among all processes of this machine.
    """

    dialect: str
    device: str

    def open(self, model: bytes | Path) -> AbstractContextManager[Opened]:
        """Loads a model, and builds its engine first where the runtime has engines."""

    def observe(self) -> GpuState | None:
        """The device's state; None where it has none to tell."""


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU or a CUDA device.

    Args:
        runtime: ``onnxruntime-cpu`` or ``onnxruntime-cuda``.
        threads: Threads of one inference.
        device: Index of the GPU.
    """

    def __init__(self, runtime: str, threads: int, device: int = 0) -> None:
        self.dialect = runtime
        self._threads = threads
        self._index = device
        self._cuda = runtime == "onnxruntime-cuda"
        self._gpu = find_gpu(device) if self._cuda else None
        self.device = self._gpu.uuid if self._gpu is not None else "cpu"

    @contextmanager
    def open(self, model: bytes | Path) -> Iterator[Opened]:
        """Opens a session."""
        with OnnxRuntimeRunner(model, self._threads, cuda=self._cuda, device=self._index) as runner:
            yield Opened(runner)

    def observe(self) -> GpuState | None:
        """The GPU's state, if there is one."""
        return read_state(self._gpu) if self._gpu is not None else None


class TensorRtBackend:
    """TensorRT on one GPU.

    Args:
        settings: Of the engine builder.
        graph: The unquantized model; None for models that stand alone.
    """

    def __init__(self, settings: BuilderSettings, graph: ModelGraph | None = None) -> None:
        self.version = tensorrt_version()
        self.dialect = dialect(self.version)
        self._settings = settings
        self._graph = graph
        self._gpu: Gpu = find_gpu(settings.device)
        self.device = self._gpu.uuid
        self.cache = EngineCache(self.version, self._gpu)

    @contextmanager
    def open(self, model: bytes | Path) -> Iterator[Opened]:
        """Builds the engine of a model, unless that was done before, and loads it to the fastest of a few places.

        Raises:
            BuildError: It cannot be built.
        """
        from objectives.devices.cuda import switch_contexts
        from objectives.runtimes.tensorrt.runner import TensorRtRunner

        plan, seconds = self.build(model if isinstance(model, bytes) else model.read_bytes())
        outputs = tuple(self._graph.outputs) if self._graph is not None else ()
        with ExitStack() as stack:
            with hold(self, alone=True):
                load = partial(TensorRtRunner, plan, self._stream, outputs)
                settle = partial(switch_contexts, self._settings.device)
                placed = stack.enter_context(fastest_place(load, settle))
            yield Opened(placed.runner, seconds, placed.spread)

    def build(self, model: bytes) -> tuple[Path, float]:
        """Builds the engine of a model, unless that was done before.

        Returns:
            The plan's file, and the seconds that the build took; 0 where the cache had it.

        Raises:
            BuildError: It cannot be built.
        """
        from objectives.runtimes.tensorrt.build import build_engine

        key = self.key(model)
        plan = self.cache.plan(key)
        if plan is not None:
            return plan, 0.0
        self._stream.use()
        names = [layer.name for layer in self._graph.quantizable] if self._graph is not None else []
        built, seconds = build_engine(
            model,
            self._settings,
            self.cache.timing_cache,
            layers=names,
            fp32_layers=self.fp32_layers,
            pause=lambda: give_way(self.device),
        )
        return self.cache.save(key, built), seconds

    @property
    def device_name(self) -> str:
        """The GPU's name."""
        return self._gpu.name

    def key(self, model: bytes) -> str:
        """Key of a model's engine in the cache."""
        return self.cache.key(model, self._settings, self.fp32_layers)

    def observe(self) -> GpuState | None:
        """The GPU's state."""
        return read_state(self._gpu)

    def report(
        self, opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...] = ()
    ) -> EngineReport:
        """Reads an engine back; profiles it, so nothing may be timed with it afterwards."""
        runner: TensorRtRunner = opened.runner  # type: ignore[assignment]
        layers, unmet = read_engine(runner.inspection, runner.layer_times(), graph, allocation)
        return EngineReport(
            layers,
            unmet,
            runner.plan_bytes,
            opened.build_seconds,
            self.version,
            folded,
            runner.method,
            opened.place_spread,
        )

    @cached_property
    def fp32_layers(self) -> frozenset[str]:
        """What `fp32_layers` says of the graph."""
        return fp32_layers(self._graph, self.dialect) if self._graph is not None else frozenset()

    @cached_property
    def _stream(self) -> Any:
        from objectives.devices.cuda import shared_stream

        return shared_stream(self._settings.device)


def make_backend(
    runtime: str, threads: int = 1, builder: BuilderSettings | None = None, graph: ModelGraph | None = None
) -> OnnxRuntimeBackend | TensorRtBackend:
    """Opens a runtime.

    Args:
        runtime: One of `RUNTIMES`.
        threads: Threads of one inference on a CPU.
        builder: Settings of the engine builder; names the GPU for all GPU runtimes.
        graph: The unquantized model, where the models to open are its schemes.

    Raises:
        RuntimeUnavailable: The machine lacks what it needs.
    """
    settings = builder or BuilderSettings()
    if runtime == "tensorrt":
        return TensorRtBackend(settings, graph)
    return OnnxRuntimeBackend(runtime, threads, settings.device)


def fp32_layers(graph: ModelGraph, dialect: str) -> frozenset[str]:
    """Nodes that compute pixel coordinates, where a half's step is up to half a pixel.

    In a strongly typed graph their types say so, and nothing needs to be set.

    Args:
        graph: The unquantized model.
        dialect: What the builder reads, a key of `DIALECTS`.
    """
    if dialect != "tensorrt-8":
        return frozenset()
    late = decoding(graph)
    return frozenset(node.name for node in graph.nodes() if node.name in late and node.op_type in _ARITHMETIC)


def tensorrt_version() -> str:
    """The installed TensorRT's version.

    Raises:
        RuntimeUnavailable: It, or a package that its use needs, is not installed.
    """
    try:
        import cuda.bindings
        import polygraphy
        import tensorrt
    except ImportError as error:
        raise RuntimeUnavailable(
            f"tensorrt: the Python package {error.name!r} is missing; install the extra: `pip install tuner[tensorrt]`"
        ) from None
    del cuda, polygraphy
    return str(tensorrt.__version__)


def hold(backend: Backend, *, alone: bool) -> AbstractContextManager[None]:
    """Holds the device: alone to time on it, beside other workers for all other work.

    Args:
        backend: Whose device.
        alone: Whether nobody else may work on it meanwhile.
    """
    return device_lock(backend.device, shared=not alone)
