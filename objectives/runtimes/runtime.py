"""What a runtime is to the rest of the project. Everything that knows one runtime lies in a subclass's folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.devices.cpu import cpu_facts
from objectives.devices.lock import device_lock
from objectives.runners.runner import Runner, RuntimeUnavailable
from objectives.runtimes.loader import Loader
from objectives.runtimes.settings import RuntimeSettings
from objectives.runtimes.support import Support
from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.errors import InputError
from search_spaces.formats import Format
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import refusal
from search_spaces.sensitivity import SensitivityTable

if TYPE_CHECKING:
    from objectives.devices.gpu import GpuState
    from objectives.quantization.dialect import Dialect
    from objectives.quantization.materialize import Materializer
    from objectives.scores import Outcome, Scores


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


@dataclass(frozen=True)
class TimingDefaults:
    """Bounds of the timing protocol where the study sets none; a shared CPU is noisy, and its iterations are long.

    Attributes:
        min_iterations: Least number of timed iterations.
        max_cov: Largest coefficient of variation of the paired ratio that counts as steady.
    """

    min_iterations: int = 15
    max_cov: float = 0.15


#: For a GPU, whose clock is steady and whose iterations are short.
GPU_TIMING = TimingDefaults(100, 0.025)


@dataclass(frozen=True)
class Finding:
    """What ``tuner doctor`` says of one thing.

    Attributes:
        name: What was looked at.
        ok: Whether it is as it should be.
        detail: What was found, one line.
        remedy: What to do; empty where nothing is needed.
        required: Whether ``tuner run`` on the CPU needs it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = False


class StudyEvaluator(Protocol):
    """What a study asks of an evaluator, real or replayed."""

    def evaluate(self, allocation: Allocation, reference: Scores, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation, in full unless the front so far clearly dominates it.

        Args:
            allocation: The scheme.
            reference: The study's scores of the unquantized model: their latency is the unit of the scheme's.
            front: ``{allocation digest: scores}``.
        """

    def reference(self) -> Scores:
        """Scores the unquantized model."""


class NotFiniteError(InputError):
    """A scheme computes NaN or infinity; a mistake of its formats unless the unquantized model does so too."""


def check_finite(outputs: Sequence[NDArray[np.generic]], title: str) -> None:
    """Refuses outputs that hold NaN or infinity.

    Raises:
        NotFiniteError: One does.
    """
    if not all(np.isfinite(values).all() for values in outputs):
        raise NotFiniteError(f"{title} computes values that are not finite with this scheme; choose other formats")


class Runtime(ABC):
    """One runtime on one device of this machine, as its settings say.

    A subclass sets `settings_type`, and overrides `support`, `dialect`, `open` and whatever else differs from an
    in-process runtime on the CPU. Constructing one is cheap and looks at no device: what the machine lacks is told by
    `check`.

    Attributes:
        settings: The study's choices.
    """

    #: Its section of the study file.
    settings_type: ClassVar[type[RuntimeSettings]] = RuntimeSettings
    #: As messages and reports name it.
    title: ClassVar[str] = ""
    #: Bounds of the timing protocol.
    timing: ClassVar[TimingDefaults] = TimingDefaults()
    #: Whether it runs on a GPU: then workers are placed one to a GPU.
    gpu: ClassVar[bool] = False
    #: Whether schemes become files that run. Where not, `study_evaluator` scores them, and a study needs no images.
    artifacts: ClassVar[bool] = True
    #: Whether the unquantized model is run as its own scheme comes out, instead of the model's file.
    reference_is_scheme: ClassVar[bool] = False
    #: Operators of ONNX's own that it does not have.
    lacking: ClassVar[frozenset[str]] = frozenset()
    #: Whether sensitivity is swept on ONNX Runtime's CUDA provider.
    sweeps_on_cuda: ClassVar[bool] = False
    #: Prior of one reformat between neighbouring layers, as a share of the reference's latency.
    reformat_share: ClassVar[float] = 0.008
    #: Keys of a run's identity that decide what an artifact computes, besides the batch.
    accuracy_keys: ClassVar[tuple[str, ...]] = ()
    #: Key of a run's identity that holds the version which `dialect` takes; empty where the files do not depend on it.
    version_key: ClassVar[str] = ""
    #: Whether it runs operators that are not ONNX's, or runs nothing at all.
    plugins: ClassVar[bool] = False
    #: What loads its schemes where they are deployed; None where only its own programming interface does.
    loader: ClassVar[Loader | None] = Loader.ONNXRUNTIME

    def __init__(self, settings: RuntimeSettings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        """As the study file has it."""
        return self.settings.name

    def check_operators(self, graph: ModelGraph) -> None:
        """Looks whether it has the operators of a model.

        Raises:
            InputError: It lacks one.
        """
        why = "" if self.plugins else refusal(graph.model, self.title, self.lacking)
        if why:
            raise InputError(f"{graph.path}: {why}")

    @abstractmethod
    def check(self) -> None:
        """Looks whether this machine can run it.

        Raises:
            RuntimeUnavailable: Something is missing.
        """

    @abstractmethod
    def support(self, fmt: Format) -> Support:
        """What it does with a format on this device."""

    @abstractmethod
    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """How it wants its graphs.

        Args:
            version: Of the runtime that is to read them; None for the installed one, or a usual one where none is.
            capability: Compute capability of the GPU that is to run them, e.g. ``12.0``; None for that of the settings,
                or of this machine's.

        Raises:
            InputError: It is no version or capability, or the files do not depend on it.
        """

    @abstractmethod
    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> AbstractContextManager[Opened]:
        """Loads a model.

        Args:
            model: Serialized ONNX in this runtime's dialect, or its file.
            graph: The unquantized model, where `model` is one of its schemes.

        Raises:
            InputError: It cannot be loaded.
        """

    @property
    def emulated(self) -> str:
        """Why this machine cannot run schemes, whose accuracy then comes from ONNX Runtime; empty where it can."""
        return ""

    def versions(self) -> dict[str, str]:
        """Versions of the packages of its own that can change a score, by package."""
        return {}

    def device(self) -> dict[str, Any]:
        """What names the device whose latency is measured, for a run's identity."""
        return cpu_facts()

    def build_facts(self) -> dict[str, Any]:
        """What else decides what is run and how it is timed, by key of the identity."""
        return {}

    @property
    def lock_name(self) -> str:
        """Identifies the device among all processes of this machine."""
        return "cpu"

    def hold(self, *, alone: bool) -> AbstractContextManager[None]:
        """Holds the device: alone to time on it, beside other workers for all other work."""
        return device_lock(self.lock_name, shared=not alone)

    def observe(self) -> GpuState | None:
        """The device's state; None where it has none to tell."""
        return None

    def portable_dialect(self, formats: Sequence[Format]) -> Dialect:
        """The dialect in which ONNX Runtime computes what this runtime would.

        Args:
            formats: All that the graphs may hold.
        """
        return self.dialect()

    def file_model(self, graph: ModelGraph) -> bytes | Path:
        """A model file, plain or an exported scheme, as `open` takes it."""
        if graph.input_shape[0] == 1 and graph.sized is None:
            return graph.path
        return bytes(graph.in_own_types().SerializeToString())

    def try_out(self, model: bytes, images: NDArray[np.float32]) -> str:
        """Loads a scheme's file and runs it once, so that none is handed out that its runtime refuses.

        Args:
            model: Serialized ONNX in this runtime's dialect.
            images: One batch ``(N, 3, H, W)``.

        Returns:
            Why it is not run on this machine; empty where it was.

        Raises:
            InputError: It cannot be loaded or run, or what it computes is not finite.
        """
        try:
            self.check()
        except RuntimeUnavailable as error:
            return str(error)
        with self.open(model) as opened:
            check_finite(opened.runner.infer(images), self.title)
        return ""

    def server_parameters(self) -> dict[str, str]:
        """Keys of its backend in NVIDIA Triton that make it compute as here; empty where none are needed."""
        return {}

    def layer_costs(
        self, graph: ModelGraph, materializer: Materializer | None, image: Callable[[], NDArray[np.float32]]
    ) -> CostTable | None:
        """Expected latency of every choice, milliseconds; None where nothing is known of it before a search.

        Args:
            graph: The unquantized model, at the study's batch.
            materializer: Makes its schemes; None where the runtime makes no artifacts.
            image: Makes one batch ``(N, 3, H, W)``.
        """
        return None

    def study_evaluator(self, graph: ModelGraph) -> StudyEvaluator:
        """Scores schemes where there are no artifacts.

        Raises:
            InputError: There are: they are scored by `objectives.evaluation`.
        """
        raise InputError(f"runtime.name: {self.name!r} scores artifacts, it has no evaluator of its own")

    def sensitivity(self, graph: ModelGraph, formats: Sequence[str]) -> SensitivityTable | None:
        """A prior of its own; None where it is to be measured."""
        return None

    @classmethod
    def findings(cls) -> list[Finding]:
        """What ``tuner doctor`` says of it; must not end the process, whatever is broken."""
        return []
