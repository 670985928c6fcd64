"""What a runtime that compiles engines offers besides: building, reading back, probing, files of an export."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from objectives.quantization.materialize import Artifact
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.runtime import Opened, Runtime
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


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

    @property
    @abstractmethod
    def device_name(self) -> str:
        """The device's name, for the probe's table."""

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
    def never_built(self, graph: ModelGraph) -> dict[tuple[str, str], str]:
        """``{(layer, format): reason}`` of pairs that the builder must not even be given."""

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
