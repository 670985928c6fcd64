"""Runs a model over images and collects its detections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from objectives.detection.cache import PreprocessedImages
from objectives.detection.contract import DetectorContract, Thresholds
from objectives.detection.heads import decode
from objectives.detection.scoring import Predictions
from search_spaces.errors import InputError


class NonFiniteOutputError(InputError):
    """The model's output holds NaN or infinity; a mistake of the user's where the model is."""


class InferenceRunner(Protocol):
    """What `predict` needs of a runner."""

    def infer(self, images: NDArray[np.float32]) -> tuple[NDArray[np.generic], ...]:
        """Runs the model on (n, 3, H, W), float32; returns its outputs in graph order."""


def predict(
    runner: InferenceRunner,
    images: PreprocessedImages,
    contract: DetectorContract,
    thresholds: Thresholds | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    batch: int = 1,
) -> Predictions:
    """Detects on all images.

    Args:
        runner: An active runner; with `workers` > 1 its `infer` is called from several threads at once.
        images: Preprocessed for the contract's image size.
        contract: How to read the outputs.
        thresholds: Selection of detections; Ultralytics' validation by default.
        workers: Python threads; inference and decoding of different images overlap.
        progress: Called with the number of images done, in order.
        batch: Images per inference; the last batch is filled up by repeating its last image.

    Raises:
        NonFiniteOutputError: An output holds NaN or infinity; names the image by its id.
    """
    chosen = thresholds or Thresholds()

    def detect(start: int) -> list[NDArray[np.float32]]:
        stop = min(start + batch, len(images))
        pixels = images.batch(start, stop)
        if stop - start < batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], batch - (stop - start), 0)])
        outputs = [np.asarray(output)[: stop - start] for output in runner.infer(pixels)]
        if not np.isfinite(outputs[contract.output_index]).all():
            raise NonFiniteOutputError(
                f"output {contract.output!r} holds NaN or infinity (image id {images.ids[start]}); "
                "give a model of finite outputs"
            )
        found = decode(outputs, contract, chosen)
        for rows, place in zip(found, images.letterboxes[start:stop], strict=True):
            rows[:, :4] = place.to_image(rows[:, :4])
        return found

    starts = range(0, len(images), batch)
    detections: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="predict") as pool:
        jobs = [pool.submit(detect, start) for start in starts]
        try:
            for job in jobs:
                detections += job.result()
                if progress is not None:
                    progress(len(detections))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Predictions(images.ids, tuple(detections), contract.classes, contract.class_count)
