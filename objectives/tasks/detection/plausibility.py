"""Whether what a head assumes of a model's outputs holds on real images: a wrong reading scores 0, and says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.heads.head import Outputs
from objectives.tasks.detection.heads.registry import HEADS
from objectives.tasks.detection.predict import InferenceRunner
from objectives.tasks.detection.predictions import Predictions
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from search_spaces.limits import renew, step
from search_spaces.model_graph import ModelGraph
from search_spaces.plugins import plugins

_IMAGES = 4
_ENOUGH = 10  # detections, for their boxes to tell anything
_SHARES = 2.0  # pixels: no ten boxes of a detector all lie in a corner of this size
_BEYOND = 10.0  # sides of the input: what is read as shares but is in pixels lies further off
_MOST = 0.8
_TWICE = 0.5, 0.7311  # where the sigmoid of a probability lies
_SURE, _UNSURE = 0.5, 0.05

Rows = NDArray[np.float32]


def check_reading(
    graph: ModelGraph, detector: Detector, runner: InferenceRunner, images: PreprocessedImages, batch: int = 1
) -> None:
    """Reads the outputs of the first images, and looks whether they can be what the head takes them for.

    Args:
        graph: The model.
        detector: How it is read.
        runner: An active runner of it, or of a scheme of it.
        images: Preprocessed as the detector wants them.
        batch: Images of one inference.

    Raises:
        InputError: They cannot; says what was seen, and which head fits.
    """
    outputs = _outputs(runner, images, batch)
    doubt = _doubt(detector, outputs)
    if not doubt:
        return
    fitting = [name for name in HEADS.names() if name != detector.name and _fits(graph, detector, name, outputs)]
    remedy = f"give --head {' or --head '.join(fitting)} (model.head)" if fitting else "no known head reads them so"
    raise InputError(f"{graph.path}: read as {detector.name!r}, {doubt}; {remedy}")


def check_model(graph: ModelGraph, detector: Detector, images: PreprocessedImages) -> None:
    """As `check_reading`, on ONNX Runtime; nothing is checked where that lacks an operator of the model."""
    if plugins(graph.model):
        return
    running = step(graph.path, "running it on some images")
    with running, OnnxRuntimeRunner(graph.model.SerializeToString(), threads=0) as runner:
        check_reading(graph, detector, runner, images)


def other_pixels(detector: Detector, runner: InferenceRunner, images: PreprocessedImages, batch: int = 1) -> str:
    """What a model that is sure of nothing says to the same images in the other range; empty where it is no surer.

    Args:
        detector: How it is read.
        runner: An active runner of it.
        images: Preprocessed as the detector wants them.
        batch: Images of one inference.
    """
    if any(images.preprocessing.mean):  # neither range is that of what the model takes
        return ""
    levels = images.preprocessing.divisor == 1.0
    factor = 1 / 255 if levels else 255.0
    best = _best(detector, _outputs(runner, images, batch))
    other = _best(detector, _outputs(runner, images, batch, factor))
    if other < max(_SURE, best):
        return ""
    own, better = ("0..255", "0..1") if levels else ("0..1", "0..255")
    return (
        f"no score of {min(_IMAGES, len(images))} images is above {best:.2f} with pixels in {own}, but one is "
        f"{other:.2f} with pixels in {better}: the model may want those; give another --head (model.head), or export "
        "it with a division by 255 as its first node, which is recognised"
    )


def unsure(predictions: Predictions) -> bool:
    """Whether no detection of any image has a score worth the name."""
    return not any((rows[:, 4] >= _UNSURE).any() for rows in predictions.detections)


def _outputs(runner: InferenceRunner, images: PreprocessedImages, batch: int, factor: float = 1.0) -> list[Outputs]:
    """All outputs of each of the first images, each (1, ...)."""
    count = min(_IMAGES, len(images))
    found: list[Outputs] = []
    for start in range(0, count, batch):
        rows = [min(row, count - 1) for row in range(start, start + batch)]
        outputs = [np.asarray(output) for output in runner.infer(images.at(rows) * np.float32(factor))]
        renew()
        if batch == 1:
            found.append(outputs)
        else:
            found += [[output[at : at + 1] for output in outputs] for at in range(min(batch, count - start))]
    return found


def _doubt(detector: Detector, outputs: Sequence[Outputs]) -> str:
    """What contradicts the head, in one clause."""
    rows = _rows(detector, outputs)
    if len(rows) < _ENOUGH:
        return ""
    boxes, scores, labels = rows[:, :4], rows[:, 4], rows[:, 5]
    many = f"{len(rows)} detections on {len(outputs)} images"
    size = "{} x {}".format(*detector.image_size)
    if scores.max() > 1 + 1e-3:
        return f"its scores reach {scores.max():.3g}, and probabilities do not"
    if (labels != np.round(labels)).any():
        return f"its classes are no whole numbers, e.g. {labels[labels != np.round(labels)][0]:.3g}"
    if np.abs(boxes).max() <= _SHARES:
        return f"the boxes of {many} lie within 0..1, up to {boxes.max():.3g}, and not in pixels of the {size} input"
    far = np.median(np.abs(boxes))
    if far > _BEYOND * max(detector.image_size):
        return f"the boxes of {many} lie far outside of the {size} input, half of them beyond {far:.3g}"
    ends = (boxes[:, 2:] < boxes[:, :2]).any(1).mean()
    if ends > _MOST:
        return f"{ends:.0%} of the boxes of {many} end before they begin, as centre, width, height read as corners do"
    return ""


def _fits(graph: ModelGraph, detector: Detector, name: str, outputs: Sequence[Outputs]) -> bool:
    """Whether another head reads those outputs without a contradiction."""
    try:
        other = recognise(graph, head=name, image_size=detector.image_size, classes=detector.classes or None)
        rows = _rows(other, outputs)
    except (InputError, ValueError, IndexError):  # it takes another number of outputs, or of columns
        return False
    if len(rows) < _ENOUGH or _doubt(other, outputs):
        return False
    low, high = rows[:, 4].min(), rows[:, 4].max()
    return not (_TWICE[0] <= low and high <= _TWICE[1])  # probabilities that it took for logits


def _rows(detector: Detector, outputs: Sequence[Outputs]) -> Rows:
    found = [rows for each in outputs for rows in detector.decode(each, Thresholds(iou=1.0))]
    return np.concatenate(found)


def _best(detector: Detector, outputs: Sequence[Outputs]) -> float:
    rows = _rows(detector, outputs)
    return float(rows[:, 4].max()) if len(rows) else 0.0
