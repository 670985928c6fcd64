"""Runs a model over images and collects its detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.letterbox import Placement
from objectives.tasks.detection.data.masks import Rle
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.heads.instances import KEYPOINTS, MASKS, Instances
from objectives.tasks.detection.predictions import Predictions
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from search_spaces.limits import renew


class NonFiniteOutputError(InputError):
    """The model's output holds NaN or infinity; a mistake of the user's where the model is."""


class InferenceRunner(Protocol):
    """What `predict` needs of a runner."""

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.generic], ...]:
        """Runs the model on (n, 3, H, W), float32; returns its outputs in graph order."""


def predict(
    runner: InferenceRunner,
    images: PreprocessedImages,
    detector: Detector,
    thresholds: Thresholds | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    batch: int = 1,
    rows: Sequence[int] | None = None,
) -> Predictions:
    """Detects on images.

    Args:
        runner: An active runner; with `workers` > 1 its `infer` is called from several threads at once.
        images: Preprocessed as the detector wants them.
        detector: How to read the outputs.
        thresholds: Selection of detections; Ultralytics' validation by default.
        workers: Python threads; inference and decoding of different images overlap.
        progress: Called with the number of images done, in order.
        batch: Images per inference; the last batch is filled up by repeating its last image.
        rows: Positions of the images to run, in the order that they come back in; None: all.

    Raises:
        NonFiniteOutputError: An output holds NaN or infinity; names the image by its id.
    """
    chosen = thresholds or Thresholds()
    wanted = range(len(images)) if rows is None else rows

    def detect(start: int) -> list[_Found]:
        taken = wanted[start : start + batch]
        pixels = images.at(taken)
        if len(taken) < batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], batch - len(taken), 0)])
        outputs = [np.asarray(output) for output in runner.infer(pixels)]
        if len(taken) < batch:
            outputs = [output[: len(taken)] for output in outputs]
        for name, output in zip(detector.head.outputs, detector.read(outputs), strict=True):
            if np.isfinite(output).all():
                continue
            if np.isnan(output).any() or not getattr(detector.head, "overflows", False):
                raise NonFiniteOutputError(
                    f"output {name!r} holds NaN or infinity (image id {images.ids[taken[0]]}); "
                    "give a model of finite outputs"
                )
        found = detector.instances(outputs, chosen)
        return [_on_image(one, images.placements[row]) for one, row in zip(found, taken, strict=True)]

    starts = range(0, len(wanted), batch)
    done: list[_Found] = []
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="predict") as pool:
        jobs = [pool.submit(detect, start) for start in starts]
        try:
            for job in jobs:
                done += job.result()
                renew()
                if progress is not None:
                    progress(len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ids = tuple(images.ids[row] for row in wanted)
    detections = tuple(one.rows for one in done)
    masks = tuple(one.masks for one in done) if MASKS in detector.details else None
    keypoints = tuple(one.keypoints for one in done) if KEYPOINTS in detector.details else None
    return Predictions(ids, detections, detector.classes, detector.class_count, masks, keypoints)


@dataclass(frozen=True)
class _Found:
    """Detections of one image, in its pixels."""

    rows: NDArray[np.float32]
    masks: tuple[Rle, ...]
    keypoints: NDArray[np.float32]


def _on_image(found: Instances, place: Placement) -> _Found:
    rows = found.rows
    rows[:, :4] = place.to_image(rows[:, :4])
    masks = found.masks.encoded(rows[:, :4], place) if found.masks is not None else ()
    points = np.zeros((len(rows), 0, 3), np.float32)
    if found.keypoints is not None:
        points = np.array(found.keypoints, np.float32)
        placed = place.points_to_image(points[:, :, :2].reshape(-1, 2)).reshape(points[:, :, :2].shape)
        points[:, :, :2] = np.clip(placed, 0, [place.width, place.height])  # as boxes are
    return _Found(rows, masks, points)
