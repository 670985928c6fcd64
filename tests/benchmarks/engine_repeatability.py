"""How well an engine's latency repeats: the same engine in fresh processes, and the same scheme built anew.

    python tests/benchmarks/engine_repeatability.py RUN --trial N [--processes 5] [--rebuilds 3] [--throughput]

RUN is a finished tensorrt run; its engines come from the user's cache. Prints one line per measurement and the spread
(largest / smallest - 1) of the paired ratio.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from objectives.accuracy import predict
from objectives.detection.cache import PreprocessedImages
from objectives.evaluation import Bench, EvaluatorSettings
from objectives.evaluator import Evaluator
from objectives.scores import Latency, Scores
from tuner.loaded import load_run
from tuner.measuring import evaluator_settings
from tuner.prepare import read_inputs
from tuner.workbench import Workbench


def spread(ratios: list[float]) -> str:
    return f"spread {max(ratios) / min(ratios) - 1:.2%} over {len(ratios)}"


def measured(settings: EvaluatorSettings, scheme, title: str) -> Latency:
    with Evaluator(settings) as evaluator:
        found = evaluator.evaluate(scheme)
    assert isinstance(found, Scores) and found.latency is not None, found
    timing = found.latency
    print(
        f"{title}: p50 {timing.p50_ms:.4f} ms, ratio {timing.ratio:.4f}, cov {timing.cov:.2%}, build "
        f"{found.seconds['build']:.1f} s, {timing.state}",
        flush=True,
    )
    return timing


def throughput(settings: EvaluatorSettings, scheme) -> None:
    """Images per second of the whole evaluation over those of the engine alone."""
    bench = Bench(settings)
    artifact = bench._materializer.materialize(scheme)
    images = PreprocessedImages.build(settings.dataset.images, settings.contract.image_size, settings.cache)
    with bench._backend.open(artifact.engine_model) as opened:
        predict(opened.runner, images, settings.contract, workers=settings.workers, batch=settings.batch)
        start = time.perf_counter()
        predict(opened.runner, images, settings.contract, workers=settings.workers, batch=settings.batch)
        whole = len(images) / (time.perf_counter() - start)
        launch = opened.runner.launcher(bench._sample)
        alone = settings.batch / float(np.median([launch()() for _ in range(200)]))
    print(f"evaluation {whole:.0f} images/s, engine alone {alone:.0f} images/s: {whole / alone:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", type=int, required=True)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rebuilds", type=int, default=3)
    options = parser.parse_args()
    loaded = load_run(options.run)
    scheme = loaded.record(options.trial).allocation
    workbench = Workbench(read_inputs(loaded.config), loaded.run)
    settings = replace(evaluator_settings(workbench), predictions=None, engines=None)
    ratios = [measured(settings, scheme, f"process {index + 1}").ratio for index in range(options.processes)]
    if ratios:
        print(f"same engine, fresh processes: {spread(ratios)}")
    throughput(settings, scheme)
    rebuilt = []
    for index in range(options.rebuilds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUNER_CACHE"] = folder
            rebuilt.append(measured(settings, scheme, f"rebuild {index + 1}").ratio)
    if rebuilt:
        print(f"same scheme, built anew with an empty timing cache: {spread(rebuilt)}")


if __name__ == "__main__":
    main()
