"""TensorRT-RTX: engines are built here for any GPU that it knows, and run and timed where such a GPU is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from objectives.devices.gpu import Gpu, GpuState, find_gpu, gpu_facts, read_state
from objectives.quantization.artifact import Artifact
from objectives.quantization.dialect import Dialect
from objectives.quantization.weights import WeightSettings
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import PLAN, EngineBuilder, EngineExport
from objectives.runtimes.engine_cache import EngineCache
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.runtime import GPU_TIMING, Finding, Opened
from objectives.runtimes.support import Support
from objectives.runtimes.tensorrt.dialect import EMULATED, STRONGLY_TYPED
from objectives.runtimes.tensorrt.engine_report import report_of
from objectives.runtimes.tensorrt.memory_places import PLACES, fastest_place
from objectives.runtimes.tensorrt.plain_model import unquantized
from objectives.runtimes.tensorrt_rtx.capability import (
    CAPABILITIES,
    Capability,
    capability_text,
    lacks,
    parse_capability,
    rtx_support,
)
from objectives.runtimes.tensorrt_rtx.findings import rtx_findings
from objectives.runtimes.tensorrt_rtx.one_layer import SupportTable
from objectives.runtimes.tensorrt_rtx.settings import TensorRtRtxSettings
from search_spaces.allocation import Allocation
from search_spaces.formats import Format
from search_spaces.model_graph import ModelGraph


class TensorRtRtx(EngineBuilder):
    """TensorRT-RTX for GPUs of one compute capability, this machine's or another's."""

    settings_type = TensorRtRtxSettings
    title = "TensorRT-RTX"
    timing = GPU_TIMING
    gpu = True
    ahead_of_time = True
    # Its parser calls NonZero supported and finds no creator of it (1.7).
    lacking = frozenset({"NonZero"})
    reformat_share = 0.035
    # Where it is emulated, accuracy is ONNX Runtime's, and that of an engine is another one.
    accuracy_keys = ("versions.tensorrt_rtx", "runtime.emulated", "runtime.compute_capability")
    version_key = "versions.tensorrt_rtx"
    engine_tool = "tensorrt_rtx"
    settings: TensorRtRtxSettings
    _no_gpu = ""

    def check(self) -> None:
        """Raises `RuntimeUnavailable` where the package is missing, or it is not known which GPU to build for."""
        _ = self.version, self.capability

    @cached_property
    def version(self) -> str:
        """Of the installed TensorRT-RTX; raises `RuntimeUnavailable` where there is none."""
        try:
            import tensorrt_rtx
        except ImportError as error:
            raise RuntimeUnavailable(
                f"tensorrt-rtx: the Python package {error.name!r} is missing; install the extra: "
                "`pip install tuner[tensorrt-rtx]`"
            ) from None
        return str(tensorrt_rtx.__version__)

    @cached_property
    def capability(self) -> Capability:
        """Compute capability that engines are built for; raises `RuntimeUnavailable` where it is not known."""
        if self.settings.compute_capability is not None:
            return parse_capability(self.settings.compute_capability)
        known = ", ".join(map(capability_text, CAPABILITIES))
        if self._gpu is None:
            raise RuntimeUnavailable(
                f"tensorrt-rtx: {self._no_gpu}; name the GPU to build for, e.g. runtime.compute_capability: '12.0' "
                f"(one of {known})"
            )
        own = self._gpu.compute_capability
        if own not in CAPABILITIES:
            raise RuntimeUnavailable(
                f"tensorrt-rtx: runs on compute capability {known}, and this {self._gpu.name} has "
                f"{capability_text(own)}; choose tensorrt, or name another GPU by runtime.compute_capability"
            )
        return own

    @cached_property
    def emulated(self) -> str:
        """Why engines do not run here."""
        target = capability_text(self.capability)
        if self._gpu is None:
            return f"engines are built for compute capability {target}, and {self._no_gpu}"
        own = capability_text(self._gpu.compute_capability)
        if own != target:
            return f"engines are built for compute capability {target}, and this {self._gpu.name} has {own}"
        return ""

    def support(self, fmt: Format) -> Support:
        """By compute capability."""
        return rtx_support(fmt, self.capability)

    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """That of TensorRT >= 10, less what GPUs of the capability lack."""
        if capability is not None:
            target = parse_capability(capability)
        else:
            try:
                target = self.capability
            except RuntimeUnavailable:  # made here for another machine
                target = CAPABILITIES[-1]
        return replace(STRONGLY_TYPED, name=self.title, refuses=partial(lacks, capability=target))

    def portable_dialect(self, formats: Sequence[Format]) -> Dialect:
        """The same graph in float32."""
        return EMULATED

    @contextmanager
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> Iterator[Opened]:
        """Builds the engine of a model, unless that was done before, and loads it to the fastest of a few places.

        Raises:
            BuildError: It cannot be built.
            RuntimeUnavailable: This machine has no GPU that runs it.
        """
        if self.emulated:
            raise RuntimeUnavailable(
                f"tensorrt-rtx: {self.emulated}: they can be built here (`tuner build`), and run there"
            )
        from objectives.devices.cuda import shared_stream, switch_contexts
        from objectives.runtimes.tensorrt.runner import TensorRtRunner
        from objectives.runtimes.tensorrt_rtx.bindings import TensorRtRtxBindings

        plan, seconds = self.build(model if isinstance(model, bytes) else model.read_bytes(), graph)
        outputs = tuple(graph.outputs) if graph is not None else ()
        bindings = TensorRtRtxBindings(self.cache.folder / "kernels.cache")
        stream = shared_stream(self.settings.device)
        with ExitStack() as stack:
            with self.hold(alone=True):
                load = partial(TensorRtRunner, bindings, plan, stream, outputs)
                placed = stack.enter_context(fastest_place(load, partial(switch_contexts, self.settings.device)))
            yield Opened(placed.runner, seconds, placed.spread)

    def cached(self, model: bytes, graph: ModelGraph | None) -> Path | None:
        """The plan of a model, if it was built before."""
        return self.cache.plan(self.cache.key(model))

    def build(self, model: bytes, graph: ModelGraph | None) -> tuple[Path, float]:
        """Builds a plan on the CPU, unless that was done before."""
        from objectives.runtimes.tensorrt_rtx.build import build_engine

        plan = self.cached(model, graph)
        if plan is not None:
            return plan, 0.0
        names = [layer.name for layer in graph.quantizable] if graph is not None else []
        built, seconds = build_engine(model, self.capability, names)
        return self.cache.save(self.cache.key(model), built), seconds

    def inspect(
        self, opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...] = ()
    ) -> EngineReport:
        """Asks the engine's inspector and its profiler."""
        return report_of(opened, graph, allocation, folded, self.version)

    def never_built(
        self, graph: ModelGraph, wanted: Mapping[str, Sequence[str]], weights: WeightSettings
    ) -> dict[tuple[str, str], str]:
        """What it does not build in a model of one layer."""
        table = SupportTable(self.cache.folder / "support.json", self.dialect(), self.capability)
        return table.unbuildable(graph, wanted, weights)

    def cache_folder(self) -> Path:
        """Beside the plans of this version and capability."""
        return self.cache.folder

    def export(self, artifact: Artifact, graph: ModelGraph, version: str, *, quantized: bool) -> EngineExport:
        """The plan where it is at hand, and the line for NVIDIA's ``tensorrt_rtx``."""
        files: dict[str, bytes] = {}
        try:
            plan = self.cached(artifact.engine_model, graph)
        except RuntimeUnavailable:
            plan = None  # on a machine without the package the command builds it elsewhere
        if plan is not None:
            files[PLAN] = plan.read_bytes()
        return EngineExport(files, self.engine_tool, self.command(PLAN))

    @property
    def target(self) -> str:
        """As the settings have it, or this machine's."""
        return capability_text(self.capability)

    def command(self, engine: str) -> str:
        """NVIDIA's own tool; source: TensorRT-RTX, "CPU-only AOT and TensorRT-RTX engines"."""
        words = [self.engine_tool, "--onnx=model.onnx", f"--saveEngine={engine}", "--skipInference"]
        return shlex.join([*words, "--computeCapabilities={}{}".format(*self.capability)])

    def file_model(self, graph: ModelGraph) -> bytes | Path:
        """A plain model in the engine's types; an exported scheme as it is."""
        return unquantized(graph, self.dialect())

    def versions(self) -> dict[str, str]:
        """TensorRT-RTX's."""
        return {"tensorrt_rtx": self.version}

    def device(self) -> dict[str, Any]:
        """The processor, and the GPU where it runs the engines."""
        own = gpu_facts(self._gpu) if self._gpu is not None and not self.emulated else {}
        return {**super().device(), **own}

    def build_facts(self) -> dict[str, Any]:
        """The GPU that engines are for, whether they run here, and how they are timed."""
        facts = {"compute_capability": capability_text(self.capability), "emulated": bool(self.emulated)}
        return {f"runtime.{key}": value for key, value in facts.items()} | {"timing.places": PLACES}

    @property
    def device_name(self) -> str:
        """The GPU's name, or what stands for it."""
        if self._gpu is not None and not self.emulated:
            return self._gpu.name
        return f"compute capability {capability_text(self.capability)}"

    @property
    def lock_name(self) -> str:
        """The GPU, or the processor that emulates it."""
        return self._gpu.uuid if self._gpu is not None and not self.emulated else super().lock_name

    def observe(self) -> GpuState | None:
        """The GPU's state."""
        return read_state(self._gpu) if self._gpu is not None and not self.emulated else None

    @classmethod
    def findings(cls) -> list[Finding]:
        """Whether it can be imported and builds, and where its engines run."""
        return rtx_findings()

    @cached_property
    def cache(self) -> EngineCache:
        """Of this version and compute capability."""
        return EngineCache(f"tensorrt-rtx-{self.version}", "sm{}{}".format(*self.capability))

    @cached_property
    def _gpu(self) -> Gpu | None:
        try:
            return find_gpu(self.settings.device)
        except RuntimeUnavailable as error:
            self._no_gpu = f"no GPU of this machine can be seen ({str(error).split(';')[0]})"
            return None
