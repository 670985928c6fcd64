"""The preprocessed images of a run, each made once and kept in its cache."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from search_spaces.errors import InputError
from tuner.study.inputs import Data, Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent


def data_of(inputs: Inputs) -> Data:
    """The images of a study.

    Raises:
        InputError: Scores are replayed, so there are none.
    """
    if inputs.data is None:
        raise InputError("runtime.name: 'replay' has no images and no artifacts; choose onnxruntime-cpu")
    return inputs.data


def ensure_images(
    inputs: Inputs,
    run: RunFolder,
    records: Sequence[ImageRecord],
    steps: Steps = silent,
    title: str = "preprocessing images",
) -> PreprocessedImages:
    """Preprocessed images, from the run's cache where they are there.

    Args:
        inputs: The study, whose model says how they are prepared.
        run: Where they are kept.
        records: The image files.
        steps: Shows progress.
        title: Of the step.

    Raises:
        InputError: Scores are replayed, or a file is no picture.
    """
    preprocessing = data_of(inputs).contract.preprocessing
    with steps(title, len(records)) as done:
        return PreprocessedImages.build(records, preprocessing, run.image_cache, done)


def calibration_images(
    inputs: Inputs,
    run: RunFolder,
    steps: Steps = silent,
    limit: int | None = None,
    title: str = "preprocessing calibration images",
) -> PreprocessedImages:
    """The first `limit` calibration images of a study, or all; raises as `ensure_images` does."""
    return ensure_images(inputs, run, data_of(inputs).calibration.images[:limit], steps, title)
