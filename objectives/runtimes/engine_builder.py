"""What a runtime that compiles engines offers besides: building, reading back, probing, files of an export."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.artifact import Artifact
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.loader import Loader
from objectives.runtimes.runtime import Opened, Runtime
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

#: Name of the engine's file in an exported scheme.
PLAN = Loader.TENSORRT.value


class BuildError(RuntimeError):
    """A model cannot be built into an engine.

    Attributes:
        layer: The model's layer that stopped it; empty where none is known.
        memory: Whether the device's memory did not suffice.
    """

    def __init__(self, message: str, layer: str = "", memory: bool = False) -> None:
        super().__init__(message)
        self.layer = layer
        self.memory = memory


@dataclass(frozen=True)
class EngineExport:
    """What an engine adds to an exported scheme.

    Attributes:
        files: ``{file name: content}`` beside ``model.onnx``.
        tool: What builds the same engine without us, e.g. ``trtexec``.
        command: Its line.
    """

    files: Mapping[str, bytes]
    tool: str
    command: str


class EngineBuilder(Runtime):
    """A runtime whose engines are built, in minutes, and kept in the user's cache.

    Its unquantized engine is the reference, for a builder chooses precision and kernels as it does for the schemes.
    """

    reference_is_scheme = True
    loader: ClassVar[Loader | None] = None
    #: What builds or times the same engine without us, as an exported scheme names it, e.g. ``trtexec``.
    engine_tool: ClassVar[str] = ""
    #: Whether it builds for GPUs that this machine need not have, named by the setting ``compute_capability``.
    ahead_of_time: ClassVar[bool] = False

    def try_out(self, model: bytes, images: NDArray[np.float32]) -> str:
        """It is not run: that takes an engine, built in minutes on the device that it is for."""
        return f"{self.title} builds an engine of it first, on the device that it is for"

    @property
    @abstractmethod
    def device_name(self) -> str:
        """The device's name, for the probe's table."""

    @property
    def target(self) -> str:
        """Compute capability of the GPU that it builds for, e.g. ``12.0``; empty where it is this machine's."""
        return ""

    def command(self, engine: str) -> str:
        """The line that builds an engine from ``model.onnx`` without us; empty where it needs more than a name.

        Args:
            engine: File to write.
        """
        return ""

    @abstractmethod
    def cached(self, model: bytes, graph: ModelGraph | None) -> Path | None:
        """The engine of a model, if it was built before."""

    @abstractmethod
    def build(self, model: bytes, graph: ModelGraph | None) -> tuple[Path, float]:
        """Builds the engine of a model, unless that was done before.

        Args:
            model: Serialized ONNX in this runtime's dialect.
            graph: The unquantized model, where `model` is one of its schemes.

        Returns:
            Its file, and the seconds that the build took; 0 where it lay in the cache.

        Raises:
            BuildError: It cannot be built.
        """

    @abstractmethod
    def inspect(
        self, opened: Opened, graph: ModelGraph, allocation: Allocation, folded: tuple[str, ...] = ()
    ) -> EngineReport:
        """Reads an engine back; profiles it, so nothing may be timed with it afterwards.

        Args:
            opened: The engine.
            graph: The unquantized model.
            allocation: The scheme.
            folded: Layers whose weights the builder was given unpacked.
        """

    @abstractmethod
    def never_built(
        self, graph: ModelGraph, wanted: Mapping[str, Sequence[str]], weights: WeightSettings
    ) -> dict[tuple[str, str], str]:
        """``{(layer, format): reason}`` of pairs that the builder must not even be given with other layers.

        Args:
            graph: The unquantized model.
            wanted: ``{format: layers that may take it}``.
            weights: How weights are quantized.
        """

    @abstractmethod
    def cache_folder(self) -> Path:
        """Where what was found of this device and version is kept for other studies."""

    @abstractmethod
    def export(self, artifact: Artifact, graph: ModelGraph, version: str, *, quantized: bool) -> EngineExport:
        """What an engine adds to an exported scheme; needs neither the runtime nor its device.

        Args:
            artifact: The scheme.
            graph: The unquantized model.
            version: Of the runtime that built it.
            quantized: Whether the scheme quantizes anything.
        """
