"""OpenVINO: models are compiled in this process in a second or two, and kept compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.artifact import Artifact
from objectives.quantization.dialect import Dialect
from objectives.quantization.weights import WeightSettings
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import BuildError, EngineBuilder, EngineExport
from objectives.runtimes.engine_cache import EngineCache
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.loader import Loader
from objectives.runtimes.openvino.compiling import (
    CONFIG,
    benchmark_command,
    benchmark_config,
    build,
    compiled_of,
    load,
    own_files,
)
from objectives.runtimes.openvino.devices import capabilities, check, full_name, properties, version
from objectives.runtimes.openvino.dialect import OPENVINO
from objectives.runtimes.openvino.findings import openvino_findings
from objectives.runtimes.openvino.probe import probed
from objectives.runtimes.openvino.report import report_of
from objectives.runtimes.openvino.runner import OpenVinoRunner
from objectives.runtimes.openvino.settings import OpenVinoSettings
from objectives.runtimes.runtime import Finding, Opened, check_finite
from objectives.runtimes.support import Support
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import Format
from search_spaces.model_graph import ModelGraph


class OpenVino(EngineBuilder):
    """OpenVINO on one of its devices."""

    settings_type = OpenVinoSettings
    title = "OpenVINO"
    accuracy_keys = ("versions.openvino", "device.openvino", "device.int8", "runtime.precision")
    version_key = "versions.openvino"
    loader = Loader.OPENVINO
    engine_tool = "benchmark_app"
    settings: OpenVinoSettings

    def check(self) -> None:
        """Raises `RuntimeUnavailable` where the package or the device is missing, or lacks the precision."""
        check(self.settings)

    def support(self, fmt: Format) -> Support:
        """As a model of one layer shows it on the device."""
        return probed(fmt.name, self.settings)

    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """The same for all versions and devices."""
        if capability is not None:
            raise InputError(
                f"--compute-capability {capability}: files for {self.name} do not depend on it; leave it out"
            )
        return OPENVINO

    @contextmanager
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> Iterator[Opened]:
        """Compiles a model, unless that was done before, and loads it.

        Raises:
            BuildError: It cannot be compiled.
        """
        kept, seconds = self.build(model if isinstance(model, bytes) else model.read_bytes(), graph)
        names = tuple(graph.outputs) if graph is not None else ()
        yield Opened(OpenVinoRunner(load(kept.read_bytes(), self.settings), names, kept), seconds)

    def try_out(self, model: bytes, images: NDArray[np.float32]) -> str:
        """Here, where the device is: compiling takes a second or two."""
        try:
            self.check()
            found = OpenVinoRunner(compiled_of(model, self.settings)).infer(images)
        except RuntimeUnavailable as error:
            return str(error)
        except BuildError as error:
            raise InputError(f"{self.title} cannot compile the model: {error}") from None
        check_finite(found, self.title)
        return ""

    def cached(self, model: bytes, graph: ModelGraph | None) -> Path | None:
        """The compiled model, if it was compiled before."""
        return self._cache.plan(self._key(model))

    def build(self, model: bytes, graph: ModelGraph | None) -> tuple[Path, float]:
        """Compiles a model, unless that was done before."""
        kept = self.cached(model, graph)
        if kept is not None:
            return kept, 0.0
        compiled, seconds = build(model, self.settings)
        return self._cache.save(self._key(model), compiled), seconds

    def inspect(
        self, opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...] = ()
    ) -> EngineReport:
        """Loads the compiled model once more, with counters, and reads the graph that it executes."""
        runner = opened.runner
        assert isinstance(runner, OpenVinoRunner) and runner.kept is not None
        kept = runner.kept.read_bytes()
        return report_of(
            load(kept, self.settings, {"PERF_COUNT": True}),
            graph,
            allocation,
            engine_bytes=len(kept),
            build_seconds=opened.build_seconds,
            version=version(),
            precision=self.settings.precision,
        )

    def never_built(
        self, graph: ModelGraph, wanted: Mapping[str, Sequence[str]], weights: WeightSettings
    ) -> dict[tuple[str, str], str]:
        """Nothing: all that it cannot run is refused as a format."""
        return {}

    def cache_folder(self) -> Path:
        """Beside the compiled models of this version and device."""
        return self._cache.folder

    def export(self, artifact: Artifact, graph: ModelGraph, version: str, *, quantized: bool) -> EngineExport:
        """OpenVINO's own two files where it is installed, and the line of its own tool that times them as we did."""
        try:
            files = own_files(artifact.engine_model)
        except RuntimeUnavailable:
            files = {}  # `ovc model.onnx` makes them elsewhere
        files[CONFIG] = benchmark_config(self.settings)
        return EngineExport(files, self.engine_tool, benchmark_command(self.settings))

    def file_model(self, graph: ModelGraph) -> bytes | Path:
        """A model file as it is, quantized or not."""
        return bytes(graph.in_own_types().SerializeToString(deterministic=True))

    def server_parameters(self) -> dict[str, str]:
        """One stream and as many threads as were timed; of precisions its backend has a word for bf16 alone."""
        found = {"TARGET_DEVICE": self.settings.device_name, "NUM_STREAMS": "1"}
        if self.settings.device_name == "CPU":
            found["INFERENCE_NUM_THREADS"] = str(self.settings.threads)
        return found | ({"HINT_BF16": "YES"} if self.settings.precision == "bf16" else {})

    def versions(self) -> dict[str, str]:
        """OpenVINO's."""
        return {"openvino": version()}

    def device(self) -> dict[str, Any]:
        """The processor, and the device as OpenVINO names it."""
        return {**super().device(), "openvino": f"{self.settings.device_name}: {self.device_name}"}

    def build_facts(self) -> dict[str, Any]:
        """What floats are computed in."""
        return {"runtime.precision": self.settings.precision}

    @property
    def device_name(self) -> str:
        """As OpenVINO has it."""
        return full_name(self.settings.device_name)

    @property
    def lock_name(self) -> str:
        """The processor, which also feeds other devices."""
        return "cpu" if self.settings.device_name == "CPU" else f"openvino-{self.settings.device_name.lower()}"

    @classmethod
    def findings(cls) -> list[Finding]:
        """Whether it is installed, and its devices."""
        return openvino_findings()

    @cached_property
    def _cache(self) -> EngineCache:
        """Of this version and device."""
        return EngineCache(f"openvino-{version()}", f"{self.settings.device_name} {self.device_name}")

    def _key(self, model: bytes) -> str:
        able = sorted(capabilities(self.settings.device_name))
        return self._cache.key(model, properties(self.settings), able, super().device())
