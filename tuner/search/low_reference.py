"""Why a study's unquantized model scores too little to lose any of it."""

from __future__ import annotations

from objectives.evaluation.bench import REFERENCE
from objectives.tasks.detection.metrics.low_score import low_score_reason
from objectives.tasks.detection.prediction_file import load_predictions
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder


def why_so_low(run: RunFolder, inputs: Inputs) -> str:
    """What its detections on the search images show, in one clause, from the predictions that the run keeps."""
    found = load_predictions(run.predictions / f"{REFERENCE}.npz")
    if inputs.data is None or found is None:
        return "model and labels do not match; set model.classes, model.head or model.image_size"
    return low_score_reason(inputs.data.search, found)
