"""Opens runners of a runtime, and its device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from objectives.devices.gpu import GpuState, find_gpu, read_state
from objectives.devices.lock import device_lock, give_way
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.runners.runner import Runner
from objectives.runtimes.backends import RUNTIMES, TensorRtBackend, hold, make_backend, tensorrt_version
from objectives.runtimes.tensorrt.build_log import BuildError
from objectives.runtimes.tensorrt.rules import BuilderSettings, dialect
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.model_graph import ModelGraph
from tuner.study.config import RuntimeSection


@contextmanager
def open_runner(
    runtime: str,
    model: bytes | Path,
    threads: int = 1,
    builder: BuilderSettings | None = None,
    graph: ModelGraph | None = None,
    batch: int = 1,
) -> Iterator[Runner]:
    """Opens a runner; builds its engine first where the runtime has engines.

    Args:
        runtime: One of `RUNTIMES`.
        model: Serialized ONNX, or its path. TensorRT is given an unquantized model in fp16.
        threads: Threads of one inference.
        builder: Settings of the engine builder; names the GPU.
        graph: The unquantized model, where `model` is one of its schemes.
        batch: Images of one inference, where `model` is a file; a scheme has its graph's batch.

    Raises:
        InputError: No such runtime is built in, or the model cannot be built.
        RuntimeUnavailable: The machine lacks what the runtime needs.
    """
    check_runtime(runtime)
    if isinstance(model, Path) and graph is None and (runtime == "tensorrt" or batch > 1):
        graph = ModelGraph(model, allow_quantized=True, batch=batch)
        model = _for_engine(graph) if runtime == "tensorrt" else graph.model.SerializeToString()
    backend = make_backend(runtime, threads, builder, graph)
    if isinstance(backend, TensorRtBackend):
        data = model if isinstance(model, bytes) else model.read_bytes()
        if backend.cache.plan(backend.key(data)) is None:
            _build_apart(builder, graph, data, backend.device)
    try:
        with hold(backend, alone=False), backend.open(model) as opened:
            yield opened.runner
    except BuildError as error:
        raise InputError(f"TensorRT cannot build the model: {error}") from None


def _build_apart(builder: BuilderSettings | None, graph: ModelGraph | None, model: bytes, device: str) -> None:
    """Builds an engine in a process of its own and leaves it in the cache: one that has built times engines wrongly.

    Raises:
        InputError: It cannot be built, or its builder died.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        job = pool.submit(_build, builder, graph, model)
        while not job.done():
            give_way(device)  # the builder may wait behind a measurement that waits for an engine that we hold open
            wait([job], 0.05)
        try:
            problem = job.result()
        except BrokenProcessPool:
            problem = "the building process died; too little memory?"
    if problem:
        raise InputError(f"TensorRT cannot build the model: {problem}")


def _build(builder: BuilderSettings | None, graph: ModelGraph | None, model: bytes) -> str:
    """Builds in this process; returns what went wrong, as the error itself does not survive the way back."""
    backend = make_backend("tensorrt", builder=builder, graph=graph)
    assert isinstance(backend, TensorRtBackend)
    try:
        with hold(backend, alone=False):
            backend.build(model)
    except BuildError as error:
        return str(error)
    return ""


def _for_engine(graph: ModelGraph) -> bytes:
    """A model file as the builder takes it: a plain one in fp16, one with Q/DQ (an exported scheme) as it is."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast") for node in graph.nodes()):
        return bytes(graph.model.SerializeToString(deterministic=True))
    nothing = CalibrationTable(graph.digest, "max", 0, {"max": {}})
    return Materializer(graph, nothing, dialect(tensorrt_version())).materialize(Allocation(())).engine_model


def check_runtime(name: str) -> None:
    """Refuses a runtime that is unknown, or that this machine cannot run.

    Raises:
        InputError: It is unknown.
        RuntimeUnavailable: TensorRT, or a GPU, is missing.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise InputError(f"runtime {name!r} is not one of {known}{nearest(name, RUNTIMES)}")
    if name == "tensorrt":
        tensorrt_version()
    if name != "onnxruntime-cpu":
        find_gpu()


def builder_settings(runtime: RuntimeSection) -> BuilderSettings:
    """The study's builder settings as the runtime takes them."""
    sources = tuple(runtime.tactic_sources) if runtime.tactic_sources is not None else None
    return BuilderSettings(
        runtime.optimization_level, runtime.workspace_mib, sources, runtime.timing_iterations, runtime.device
    )


def observer(runtime: str, device: int = 0) -> Callable[[], GpuState | None]:
    """What `measure` asks for the state of a runtime's device."""
    if runtime == "onnxruntime-cpu":
        return lambda: None
    gpu = find_gpu(device)
    return lambda: read_state(gpu)


def timing_lock(runtime: str, device: int = 0) -> AbstractContextManager[None]:
    """Holds a runtime's device for one measurement."""
    return device_lock("cpu" if runtime == "onnxruntime-cpu" else find_gpu(device).uuid)
