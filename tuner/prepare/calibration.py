"""The ranges of a run's activations, measured once and kept in ``calibration.json``."""

from __future__ import annotations

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.histogram import METHODS
from objectives.sensitivity.range_choice import range_errors
from objectives.tasks.detection.plausibility import check_model
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from tuner.prepare.images import calibration_images, data_of
from tuner.prepare.materializers import float_materializer
from tuner.prepare.weights import ensure_weights
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text
from tuner.terminal.progress import Steps, silent

_AUTO_START = "percentile"


def ensure_calibration(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> CalibrationTable:
    """Ranges of all activations, from the run where they are there.

    Args:
        inputs: The study.
        run: Where they are kept.
        steps: Shows progress.

    Raises:
        InputError: Scores are replayed, so there are no images.
    """
    if run.calibration.is_file():
        return read_calibration(run)
    images = calibration_images(inputs, run, steps)
    settings = inputs.config.calibration
    check_model(inputs.graph, data_of(inputs).contract, images)
    with steps("calibration", len(images)) as done:
        wanted = _AUTO_START if settings.method == "auto" else settings.method
        table = calibrate(inputs.graph, images.singles(), wanted, done)
    if settings.method == "auto":
        table = _with_best_method(table, inputs, run, steps)
    write_durably(run.calibration, table.to_json())
    return table


def read_calibration(run: RunFolder) -> CalibrationTable:
    """Reads the ranges of a run.

    Raises:
        InputError: The run has none.
    """
    if not run.calibration.is_file():
        raise InputError(f"run {str(run.path)!r}: not calibrated yet; `tuner resume {run.path}` goes on")
    return CalibrationTable.from_json(read_text(run.calibration))


def _with_best_method(table: CalibrationTable, inputs: Inputs, run: RunFolder, steps: Steps) -> CalibrationTable:
    """The ranges that keep the whole model's detections best when all its activations take the coarsest format."""
    pairs = inputs.space.quantized_pairs
    read = [FORMATS[fmt].activation for _, fmt in pairs if FORMATS[fmt].quantizes_activation]
    if not read:
        return table  # no activation is quantized, so no range is ever read
    coarsest = min(read, key=lambda number: (number.bits, not number.is_integer))
    scheme = Allocation.of({layer: fmt for layer, fmt in pairs if FORMATS[fmt].activation == coarsest})
    images = calibration_images(inputs, run, steps, inputs.config.sensitivity.images)
    weights = ensure_weights(inputs, run, steps)
    with steps("choosing the calibration method", len(METHODS)) as done:
        errors = range_errors(
            inputs.graph,
            lambda method: float_materializer(inputs, inputs.graph, table.with_method(method), weights),
            data_of(inputs).contract,
            images,
            scheme,
            cuda=inputs.runtime.sweeps_on_cuda,
            progress=done,
        )
    best = min(errors, key=errors.__getitem__)
    run.log("calibration", chosen=best, divergence=errors)
    return table.with_method(best)
