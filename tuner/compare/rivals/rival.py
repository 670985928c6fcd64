"""What every rival offers: from a run's model and calibration images to a quantized ONNX file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from search_spaces.errors import InputError
from tuner.prepare.images import calibration_images
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps


@dataclass(frozen=True)
class Question:
    """What every rival is asked.

    Attributes:
        inputs: The study: model, runtime, images.
        run: Its folder.
        images: Calibration images, the first of the run's list.
        steps: Shows progress.
    """

    inputs: Inputs
    run: RunFolder
    images: int
    steps: Steps

    def calibration(self) -> PreprocessedImages:
        """The calibration images, as the model reads them."""
        return calibration_images(self.inputs, self.run, self.steps, self.images)


class Rival(ABC):
    """Another tool's way to a quantized model, constructed from what stands behind the colon of ``NAME:ARGUMENT``.

    The constructor refuses an argument that is none, by `InputError`.

    Attributes:
        title: Name of its baseline.
        folder: Name of its folder below ``RUN/baselines``.
    """

    title: str
    folder: str

    @abstractmethod
    def __init__(self, argument: str) -> None: ...

    @abstractmethod
    def check(self, question: Question) -> None:
        """Makes sure, before anything runs, that it can be asked.

        Raises:
            InputError: What it needs of the study or of a named file is missing or wrong.
            RuntimeUnavailable: Its packages are missing.
        """

    @abstractmethod
    def answer(self, question: Question, folder: Path) -> Path:
        """Makes its model.

        Args:
            question: The run.
            folder: Its own, not there yet; all its files go there.

        Returns:
            The ONNX file.

        Raises:
            InputError: The tool refuses the model; becomes a value.
            RuntimeUnavailable: Its packages are missing.
        """


def refuse_argument(name: str, argument: str) -> None:
    """For a rival that takes no argument.

    Raises:
        InputError: There is one.
    """
    if argument:
        raise InputError(f"{name}:{argument}: takes nothing behind its name; write {name}")
