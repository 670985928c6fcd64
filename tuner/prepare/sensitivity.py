"""The sensitivity of a run's layers: the prior of its search, made once and kept in ``sensitivity.json``."""

from __future__ import annotations

import json
from pathlib import Path

from objectives.sensitivity.reports import write_reports
from search_spaces.sensitivity import SensitivityTable
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.images import calibration_images, data_of
from tuner.prepare.materializers import float_materializer
from tuner.prepare.predicting import worker_count
from tuner.prepare.sensitivity_sources import other_sensitivity
from tuner.prepare.weights import ensure_weights
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text
from tuner.terminal.progress import Steps, silent


def ensure_sensitivity(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> SensitivityTable:
    """The sensitivity of every layer in every format, from the run where it is there.

    It is measured, read from a file or, for a replay, synthetic; reports in JSON, CSV and Markdown are written too.

    Args:
        inputs: The study.
        run: Where it is kept.
        steps: Shows progress.

    Raises:
        InputError: The method cannot score this study.
        RuntimeUnavailable: What the method needs is missing.
    """
    if run.sensitivity.exists():
        return SensitivityTable.from_json(read_text(run.sensitivity))
    table = _measure(inputs, run, steps)
    write_reports(table, run.path)
    write_reports(table, run.path, "sensitivity")
    return table


def _measure(inputs: Inputs, run: RunFolder, steps: Steps) -> SensitivityTable:
    config = inputs.config
    if config.sensitivity.file is not None and config.sensitivity.method == "file":
        return SensitivityTable.from_json(read_text(Path(config.sensitivity.file)))
    own = inputs.runtime.sensitivity(inputs.graph, config.space.formats)
    if own is not None:
        return own
    if config.sensitivity.method == "onnx":
        return onnx_sensitivity(inputs, run, steps)
    return other_sensitivity(inputs, run, steps)


def onnx_sensitivity(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> SensitivityTable:
    """Measures every pair of the space on the ONNX graph itself; raises as `ensure_sensitivity` does."""
    from objectives.sensitivity.onnx_sweep import sweep

    config, data = inputs.config, data_of(inputs)
    calibration, weights = ensure_calibration(inputs, run, steps), ensure_weights(inputs, run, steps)
    images = calibration_images(inputs, run, steps, config.sensitivity.images, "preprocessing sensitivity images")
    pairs = inputs.space.quantized_pairs
    with steps("sensitivity", len(pairs)) as done:
        return sweep(
            inputs.graph,
            float_materializer(inputs, inputs.graph, calibration, weights),
            data.contract,
            images,
            pairs,
            run.cache / "sensitivity.jsonl",
            settings={
                "weights": json.dumps(config.weights.model_dump()),
                "calibration": f"{calibration.method}, {calibration.images} images",
                "calibration_images": data.calibration.digest,
                "runtime": config.runtime.name,
            },
            threads=worker_count(),
            cuda=inputs.runtime.sweeps_on_cuda,
            progress=done,
        )
