"""ONNX Runtime on the CPU and on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from objectives.devices.gpu import Gpu, GpuState, find_gpu, gpu_facts, read_state
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.runtimes.onnxruntime.findings import cpu_findings, cuda_findings
from objectives.runtimes.onnxruntime.profile import profile_costs
from objectives.runtimes.runtime import GPU_TIMING, Finding, Opened, Runtime, check_finite
from objectives.runtimes.settings import RuntimeSettings
from objectives.runtimes.support import COMPUTES, Support, SupportKind
from search_spaces.costs import CostTable
from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED, Format
from search_spaces.model_graph import ModelGraph

_PACKAGES = ("onnxruntime-gpu", "onnxruntime")  # the same module, from one or the other


class CpuSettings(RuntimeSettings):
    """ONNX Runtime's CPU provider."""

    name: Literal["onnxruntime-cpu"] = "onnxruntime-cpu"


class CudaSettings(RuntimeSettings):
    """ONNX Runtime's CUDA provider."""

    name: Literal["onnxruntime-cuda"] = "onnxruntime-cuda"


class OnnxRuntimeCpu(Runtime):
    """ONNX Runtime's CPU provider."""

    settings_type: ClassVar[type[RuntimeSettings]] = CpuSettings
    title = "ONNX Runtime"
    accuracy_keys = ("versions.onnxruntime", "device.int8")

    def check(self) -> None:
        """Nothing is needed beyond what the project depends on."""

    def support(self, fmt: Format) -> Support:
        """It computes in integers where activations have 8 bits; any other format saves bytes alone."""
        if fmt.name == UNQUANTIZED or (fmt.activation.is_integer and fmt.activation.bits == 8):
            return COMPUTES
        return Support(SupportKind.STORES, "weights are unpacked when the model loads: size only")

    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """The same for all versions and devices."""
        for option, value in (("--runtime-version", version), ("--compute-capability", capability)):
            if value is not None:
                raise InputError(f"{option} {value}: files for {self.name} do not depend on it; leave it out")
        return ONNXRUNTIME

    @contextmanager
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> Iterator[Opened]:
        """Opens a session."""
        with OnnxRuntimeRunner(model, self.settings.threads) as runner:
            yield Opened(runner)

    def try_out(self, model: bytes, images: NDArray[np.float32]) -> str:
        """On the CPU, which every machine has."""
        with OnnxRuntimeRunner(model, threads=0) as runner:
            check_finite(runner.infer(images), self.title)
        return ""

    def server_parameters(self) -> dict[str, str]:
        """As many threads as were timed."""
        return {} if self.gpu else {"intra_op_thread_count": str(self.settings.threads)}

    def versions(self) -> dict[str, str]:
        """Of the package that is installed."""
        return {_PACKAGES[-1]: next((v for name in _PACKAGES if (v := _version(name))), "missing")}

    def layer_costs(
        self, graph: ModelGraph, materializer: Materializer | None, image: Callable[[], NDArray[np.float32]]
    ) -> CostTable | None:
        """Read from its profiler."""
        return profile_costs(graph, materializer, image(), self.settings.threads) if materializer else None

    @classmethod
    def findings(cls) -> list[Finding]:
        """Which packages and providers there are."""
        return cpu_findings()


class OnnxRuntimeCuda(OnnxRuntimeCpu):
    """ONNX Runtime's CUDA provider, which has no integer kernels for a Conv: a baseline, not a target."""

    settings_type = CudaSettings
    timing = GPU_TIMING
    gpu = True
    sweeps_on_cuda = True

    def check(self) -> None:
        """Raises `RuntimeUnavailable` where there is no GPU."""
        find_gpu()

    @contextmanager
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> Iterator[Opened]:
        """Opens a session on the GPU."""
        settings = self.settings
        with OnnxRuntimeRunner(model, settings.threads, cuda=True, device=settings.device) as runner:
            yield Opened(runner)

    def device(self) -> dict[str, Any]:
        """The processor and the GPU."""
        return {**super().device(), **gpu_facts(self._gpu)}

    @property
    def lock_name(self) -> str:
        """The GPU."""
        return self._gpu.uuid

    def observe(self) -> GpuState | None:
        """The GPU's state."""
        return read_state(self._gpu)

    def layer_costs(
        self, graph: ModelGraph, materializer: Materializer | None, image: Callable[[], NDArray[np.float32]]
    ) -> CostTable | None:
        """Not known: its profiler tells the host's times."""
        return None

    @classmethod
    def findings(cls) -> list[Finding]:
        """Whether the provider is there."""
        return cuda_findings()

    @cached_property
    def _gpu(self) -> Gpu:
        return find_gpu(self.settings.device)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
