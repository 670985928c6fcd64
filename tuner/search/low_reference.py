"""Why a study's unquantized model is too bad to lose anything."""

from __future__ import annotations

from objectives.evaluation.bench import REFERENCE
from objectives.scores import Scores
from objectives.tasks.detection.metrics.agreement import asked
from objectives.tasks.detection.metrics.low_score import low_score_reason
from objectives.tasks.detection.metrics.metric import REFERENCE as REFERENCE_DETECTIONS
from objectives.tasks.detection.metrics.registry import METRICS
from objectives.tasks.detection.prediction_file import load_predictions
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

#: A reference below this accuracy means that model and labels do not belong together.
MIN_REFERENCE = 0.05


def too_low(run: RunFolder, inputs: Inputs, reference: Scores) -> str:
    """What is wrong with the reference's accuracy, in one clause; empty where it will do.

    It is told from the predictions that the run keeps.
    """
    accuracy = inputs.config.objective_set.maximised
    found, value = load_predictions(run.predictions / f"{REFERENCE}.npz"), accuracy.value(reference)
    images = inputs.data.search if inputs.data is not None else None
    if value < MIN_REFERENCE:
        why = low_score_reason(images, found) if images is not None and images.labelled and found else _MISMATCH
        return f"scores {accuracy.label} {value:.4f} on the labels, too little to lose any of it: {why}"
    if found is None or asked(found) or REFERENCE_DETECTIONS not in METRICS.get(accuracy.metric).needs:
        return ""
    best = max((float(rows[:, 4].max(initial=0.0)) for rows in found.detections), default=0.0)
    return (
        f"finds nothing to agree with: in {len(found)} images its best score is {best:.4f}; images of another kind, "
        "pixels fed in another way (model.head, model.image_size), or a model that was not trained"
    )


_MISMATCH = "model and labels do not match; set model.classes, model.head or model.image_size"
