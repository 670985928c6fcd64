"""TensorRT on one GPU: engines are built, kept in the user's cache, and timed by CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from objectives.devices.gpu import Gpu, GpuState, find_gpu, gpu_facts, read_state
from objectives.devices.lock import give_way
from objectives.quantization.artifact import Artifact
from objectives.quantization.decoding import decoding
from objectives.quantization.dialect import Dialect
from objectives.quantization.weights import WeightSettings
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import PLAN, BuildError, EngineBuilder, EngineExport
from objectives.runtimes.engine_cache import EngineCache
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.loader import Loader
from objectives.runtimes.runtime import GPU_TIMING, Finding, Opened
from objectives.runtimes.support import Support
from objectives.runtimes.tensorrt.attention import never_built
from objectives.runtimes.tensorrt.dialect import EMULATED, WEAKLY_TYPED, dialect_of
from objectives.runtimes.tensorrt.engine_report import report_of
from objectives.runtimes.tensorrt.findings import tensorrt_findings
from objectives.runtimes.tensorrt.memory_places import PLACES, fastest_place
from objectives.runtimes.tensorrt.plain_model import unquantized
from objectives.runtimes.tensorrt.rules import strongly_typed, support
from objectives.runtimes.tensorrt.settings import TensorRtSettings
from objectives.runtimes.tensorrt.trtexec import trtexec_command
from search_spaces.allocation import Allocation
from search_spaces.formats import Format
from search_spaces.model_graph import ModelGraph

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
#: What graphs are written for where no TensorRT is installed: those of 10 and later are alike.
_USUAL_VERSION = "10.0"


class TensorRt(EngineBuilder):
    """TensorRT on one GPU."""

    settings_type = TensorRtSettings
    title = "TensorRT"
    timing = GPU_TIMING
    gpu = True
    # What the cost model learned on yolov8n (TensorRT 8.6, H100: 11 to 31 us of 0.5 ms); with a smaller one the first
    # schemes are full of dear islands.
    reformat_share = 0.035
    accuracy_keys = (
        "versions.tensorrt",
        "device.gpu",
        *(f"runtime.{key}" for key in TensorRtSettings.builder_keys),
    )
    version_key = "versions.tensorrt"
    plugins = True
    loader = Loader.TENSORRT
    engine_tool = "trtexec"
    settings: TensorRtSettings

    def check(self) -> None:
        """Raises `RuntimeUnavailable` where TensorRT or a GPU is missing."""
        installed_version()
        find_gpu()

    def support(self, fmt: Format) -> Support:
        """By version and compute capability."""
        return support(fmt, self.version, self._gpu.compute_capability)

    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """Strongly typed from TensorRT 10 on; for a GPU that is named, less the formats that it lacks."""
        if version is None:
            try:
                version = self.version
            except RuntimeUnavailable:  # made here for another machine
                version = _USUAL_VERSION
        return dialect_of(version if "." in version else f"{version}.0", capability)

    def portable_dialect(self, formats: Sequence[Format]) -> Dialect:
        """Of its two the one in float32, which runs faster and exactly there; it has no fp8: then the other's twin."""
        return EMULATED if any(WEAKLY_TYPED.refuses(fmt) for fmt in formats) else WEAKLY_TYPED

    @contextmanager
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> Iterator[Opened]:
        """Builds the engine of a model, unless that was done before, and loads it to the fastest of a few places.

        Raises:
            BuildError: It cannot be built.
        """
        from objectives.devices.cuda import switch_contexts
        from objectives.runtimes.tensorrt.bindings import TensorRtBindings
        from objectives.runtimes.tensorrt.runner import TensorRtRunner

        plan, seconds = self.build(model if isinstance(model, bytes) else model.read_bytes(), graph)
        outputs = tuple(graph.outputs) if graph is not None else ()
        with ExitStack() as stack:
            with self.hold(alone=True):
                load = partial(TensorRtRunner, TensorRtBindings(), plan, self._stream, outputs)
                settle = partial(switch_contexts, self.settings.device)
                placed = stack.enter_context(fastest_place(load, settle))
            yield Opened(placed.runner, seconds, placed.spread)

    def cached(self, model: bytes, graph: ModelGraph | None) -> Path | None:
        """The plan of a model, if it was built before."""
        return self.cache.plan(self._key(model, graph))

    def build(self, model: bytes, graph: ModelGraph | None) -> tuple[Path, float]:
        """Builds a plan, unless that was done before."""
        from objectives.runtimes.tensorrt.build import build_engine

        plan = self.cached(model, graph)
        if plan is not None:
            return plan, 0.0
        self._stream.use()
        names = [layer.name for layer in graph.quantizable] if graph is not None else []
        built, seconds = build_engine(
            model,
            self.settings.builder,
            self.cache.timing_cache,
            layers=names,
            fp32_layers=fp32_layers(graph, self.version),
            pause=lambda: give_way(self.lock_name),
        )
        return self.cache.save(self._key(model, graph), built), seconds

    def inspect(
        self, opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...] = ()
    ) -> EngineReport:
        """Asks the engine's inspector and its profiler."""
        return report_of(opened, graph, allocation, folded, self.version)

    def never_built(
        self, graph: ModelGraph, wanted: Mapping[str, Sequence[str]], weights: WeightSettings
    ) -> dict[tuple[str, str], str]:
        """Attention in int8, before TensorRT 10."""
        return never_built(graph, self.version)

    def cache_folder(self) -> Path:
        """Beside the plans of this device and version."""
        return self.cache.folder

    def export(self, artifact: Artifact, graph: ModelGraph, version: str, *, quantized: bool) -> EngineExport:
        """The builder's model where it is another, the plan where it is at hand, and the line for ``trtexec``."""
        files = {"build.onnx": artifact.build} if artifact.build is not None else {}
        try:
            plan = self.cached(artifact.engine_model, graph)
        except RuntimeUnavailable:
            plan = None  # on a machine without TensorRT or GPU the command builds it elsewhere
        if plan is not None:
            files[PLAN] = plan.read_bytes()
        name = "build.onnx" if artifact.build is not None else "model.onnx"
        layers = fp32_layers(graph, version)
        command = trtexec_command(version, self.settings.builder, layers, quantized=quantized, model=name)
        return EngineExport(files, self.engine_tool, command)

    def file_model(self, graph: ModelGraph) -> bytes | Path:
        """A plain model in the engine's types; one with Q/DQ or in fp16, an exported scheme, as it is."""
        return unquantized(graph, self.dialect())

    def versions(self) -> dict[str, str]:
        """TensorRT's."""
        return {"tensorrt": self.version}

    def device(self) -> dict[str, Any]:
        """The processor and the GPU."""
        return {**super().device(), **gpu_facts(self._gpu)}

    def build_facts(self) -> dict[str, Any]:
        """The builder's settings, and how its engines are timed."""
        built = {f"runtime.{key}": getattr(self.settings, key) for key in self.settings.builder_keys}
        # Engines that were timed before the device had settled took 5 to 8 % longer, and other ratios.
        return built | {"timing.places": PLACES, "timing.settled": True}

    @property
    def device_name(self) -> str:
        """The GPU's name."""
        return self._gpu.name

    @property
    def lock_name(self) -> str:
        """The GPU."""
        return self._gpu.uuid

    def observe(self) -> GpuState | None:
        """The GPU's state."""
        return read_state(self._gpu)

    @classmethod
    def findings(cls) -> list[Finding]:
        """Whether it can be imported, and what it allows on this GPU."""
        return tensorrt_findings()

    @cached_property
    def version(self) -> str:
        """Of the installed TensorRT; raises `RuntimeUnavailable` where there is none."""
        return installed_version()

    @cached_property
    def cache(self) -> EngineCache:
        """Of this version and GPU."""
        major, minor = self._gpu.compute_capability
        return EngineCache(f"tensorrt-{self.version}", f"{self._gpu.name} sm{major}{minor}")

    @cached_property
    def _gpu(self) -> Gpu:
        return find_gpu(self.settings.device)

    @cached_property
    def _stream(self) -> Any:
        from objectives.devices.cuda import shared_stream

        return shared_stream(self.settings.device)

    def _key(self, model: bytes, graph: ModelGraph | None) -> str:
        return self.cache.key(model, asdict(self.settings.builder), sorted(fp32_layers(graph, self.version)))


@lru_cache(maxsize=4)
def fp32_layers(graph: ModelGraph | None, version: str) -> frozenset[str]:
    """Nodes that compute pixel coordinates, where a half's step is up to half a pixel.

    In a strongly typed graph their types say so, and nothing needs to be set.

    Args:
        graph: The unquantized model; None for a model that stands alone.
        version: TensorRT's.
    """
    if graph is None or strongly_typed(version):
        return frozenset()
    late = decoding(graph)
    return frozenset(node.name for node in graph.nodes() if node.name in late and node.op_type in _ARITHMETIC)


def installed_version() -> str:
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


__all__ = ["BuildError", "TensorRt"]
