"""How well an engine's latency repeats: the same engine in fresh processes, and the same scheme built anew.

    python tests/benchmarks/engine_repeatability.py RUN --trial N [--processes 5] [--rebuilds 3]

RUN is a tensorrt run; its engines come from the user's cache, and its images from the run's. The rebuilds have a cache
of their own that holds the reference's engine alone, and share one building process, as a study's trials do. Prints one
line per measurement and the spread (largest / smallest - 1) of the paired ratio.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from objectives.evaluation.bench import Bench
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.settings import EvaluatorSettings
from objectives.runners.runner import DeviceTimed
from objectives.runtimes.engine_cache import EngineCache
from objectives.runtimes.tensorrt.runtime import TensorRt
from objectives.scores import Latency, Scores
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.predict import predict
from search_spaces.allocation import Allocation
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs


def spread(ratios: list[float]) -> str:
    return f"spread {max(ratios) / min(ratios) - 1:.2%} over {len(ratios)}"


def measured(evaluator: Evaluator, scheme: Allocation, title: str) -> Latency:
    begin = time.perf_counter()
    found = evaluator.evaluate(scheme, evaluator.reference())
    assert isinstance(found, Scores) and found.latency is not None, found
    timing = found.latency
    print(
        f"{title}: p50 {timing.p50_ms:.4f} ms, ratio {timing.ratio:.4f}, cov {timing.cov:.2%}, attempts "
        f"{timing.attempts}, mAP {found.accuracy.map_50_95:.4f}, build {found.seconds.get('build', 0):.1f} s, all "
        f"{time.perf_counter() - begin:.1f} s, {timing.state}",
        flush=True,
    )
    return timing


def fresh(settings: EvaluatorSettings, scheme: Allocation, title: str) -> float:
    with Evaluator(settings) as evaluator:
        return measured(evaluator, scheme, title).ratio


def rebuilt(settings: EvaluatorSettings, scheme: Allocation, times: int) -> list[float]:
    """Ratios of engines that were each built from nothing; the user's own cache is not touched."""
    bench = Bench(settings)
    runtime = bench._builder
    assert isinstance(runtime, TensorRt)
    known = runtime.cached(bench._materializer.materialize(bench._unquantized).engine_model, bench._graph)
    assert known is not None, "the reference's engine is not in the cache; run the study first"
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        cache = EngineCache(runtime.cache.builder, runtime.cache.target, Path(folder))
        shutil.copy(known, cache.plans)
        os.environ["TUNER_CACHE"] = folder
        with Evaluator(settings) as evaluator:
            for index in range(times):
                ratios.append(measured(evaluator, scheme, f"rebuild {index + 1}").ratio)
                for plan in cache.plans.glob("*.plan"):
                    if plan.name != known.name:
                        plan.unlink()
    return ratios


def throughput(settings: EvaluatorSettings, scheme: Allocation) -> None:
    """Images per second of the whole evaluation over those of the engine alone."""
    bench = Bench(settings)
    artifact = bench._materializer.materialize(scheme)
    images = PreprocessedImages.build(settings.dataset.images, settings.contract.preprocessing, settings.cache)
    with bench._runtime.open(artifact.engine_model) as opened:
        assert isinstance(opened.runner, DeviceTimed)
        predict(opened.runner, images, settings.contract, workers=settings.workers, batch=settings.runtime.batch)
        start = time.perf_counter()
        predict(opened.runner, images, settings.contract, workers=settings.workers, batch=settings.runtime.batch)
        whole = len(images) / (time.perf_counter() - start)
        launch = opened.runner.launcher(bench._sample)
        alone = settings.runtime.batch / float(np.median([launch()() for _ in range(200)]))
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
    inputs = read_inputs(loaded.config)
    settings = replace(evaluator_settings(inputs, loaded.run), predictions=None, engines=None)
    if options.processes:
        ratios = [fresh(settings, scheme, f"process {index + 1}") for index in range(options.processes)]
        print(f"same engine, fresh processes: {spread(ratios)}", flush=True)
    throughput(settings, scheme)
    if options.rebuilds:
        print(f"same scheme, built anew: {spread(rebuilt(settings, scheme, options.rebuilds))}")


if __name__ == "__main__":
    main()
