"""One way to open a model and to detect: the same detections at any batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil

from objectives.runtimes.opening import open_file
from objectives.runtimes.registry import default_runtime
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.predicting import detect, worker_count
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def test_a_batch_that_does_not_fit_changes_no_detection(read: Read, run: RunFolder) -> None:
    found = []
    for batch in (1, 4):
        inputs = read(f"runtime.batch={batch}")
        data = data_of(inputs)
        images = ensure_images(inputs, run, data.full.images)
        with open_file(inputs.runtime, inputs.graph.path) as runner:
            found.append(detect(inputs.runtime, runner, images, data.contract))
    assert found[0].ids == found[1].ids and sum(len(rows) for rows in found[0].detections) > 0
    for one, four in zip(found[0].detections, found[1].detections, strict=True):
        np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-3)


def test_a_file_is_opened_at_the_batch_that_is_asked_for(read: Read) -> None:
    with open_file(default_runtime(batch=2), read().graph.path) as runner:
        (first, *_) = runner.infer(np.zeros((2, 3, *data_of(read()).contract.image_size), np.float32))
    assert first.shape[0] == 2


def test_threads_and_workers_share_the_cores() -> None:
    assert worker_count() >= 1 and worker_count(threads=4 * (psutil.cpu_count() or 1)) == 1
