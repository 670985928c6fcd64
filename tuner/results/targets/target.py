"""What a target is given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import onnx

from objectives.runtimes.loader import Loader
from objectives.runtimes.registry import RUNTIMES
from objectives.runtimes.runtime import Runtime
from objectives.tasks.detection.detector import Detector
from search_spaces.errors import InputError


@dataclass(frozen=True)
class Shipment:
    """One scheme, ready to be shipped.

    Attributes:
        name: Of its study.
        trial: What it is called: ``12``, ``12-refined``.
        files: ``{file name: content}`` of its plain export.
        detector: How images become input, and what the outputs mean.
        runtime: The one that it was measured on.
        batch: Images of one inference.
        int8: Whether any of its layers computes in 8-bit integers.
        build_command: The line that builds its engine; empty where there is none to build.
    """

    name: str
    trial: str
    files: Mapping[str, bytes]
    detector: Detector
    runtime: Runtime
    batch: int
    int8: bool
    build_command: str = ""

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The scheme's ONNX model."""
        return onnx.load_model_from_string(self.files[Loader.ONNXRUNTIME.value])

    @property
    def metadata(self) -> dict[str, str]:
        """The model's metadata properties."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; numbered where the model has none."""
        count = max(self.detector.class_count, len(self.detector.classes))
        return self.detector.classes or tuple(f"class{index}" for index in range(count))

    def loaded_by(self, target: str, *loaders: Loader) -> Loader:
        """What loads it where it goes.

        Args:
            target: As the command line names it.
            loaders: Those that the target has.

        Raises:
            InputError: None of them loads the schemes of this runtime.
        """
        found = self.runtime.loader
        if found is None or found not in loaders:
            names = [name for name in RUNTIMES.built_in() if RUNTIMES.get(name).loader in loaders]
            raise InputError(
                f"--for {target}: does not load what was made for {self.runtime.title}; run the study for it: "
                f"`tuner run STUDY.yaml --run runs/NEW --set runtime.name={names[0]}`"
                + (f" (or {', '.join(names[1:])})" if names[1:] else "")
            )
        return found


@dataclass(frozen=True)
class Laid:
    """What a target makes of a shipment.

    Attributes:
        files: ``{path below the output folder: content}``.
        usage: How it is run there, Markdown.
        onnx: Which of the files is the ONNX model; empty where none is.
        notes: One line each: what differs there from what was measured, or is still to be done.
    """

    files: Mapping[str, bytes]
    usage: str
    onnx: str = ""
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """A program that runs detectors.

    Attributes:
        title: As people call it.
    """

    title: ClassVar[str]

    def lay_out(self, shipment: Shipment) -> Laid:
        """Makes the folder that runs there.

        Raises:
            InputError: This scheme cannot run there.
        """
