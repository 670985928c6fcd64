"""Opens runners and the evaluator of the study's runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from objectives.evaluator import Evaluator as ChildEvaluator
from objectives.evaluator import EvaluatorSettings
from objectives.latency import TimingProtocol
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError, nearest
from search_spaces.formats import Granularity
from tuner.config import WeightsSection

if TYPE_CHECKING:
    from tuner.workbench import Evaluator, Workbench

RUNTIMES = ("onnxruntime-cpu", "onnxruntime-cuda")


def open_runner(runtime: str, model: bytes | Path, threads: int = 1) -> AbstractContextManager[OnnxRuntimeRunner]:
    """Opens a runner.

    Args:
        runtime: One of `RUNTIMES`.
        model: Serialized ONNX, or its path.
        threads: Threads of one inference.

    Raises:
        InputError: No such runtime is built in.
    """
    check_runtime(runtime)
    return OnnxRuntimeRunner(model, threads, cuda=runtime == "onnxruntime-cuda")


def worker_count() -> int:
    """Python threads for scoring: one per physical core."""
    return psutil.cpu_count(logical=False) or 1


@contextmanager
def open_evaluator(workbench: Workbench) -> Iterator[Evaluator]:
    """Starts the evaluator of a study: one child process that lives from trial to trial.

    Raises:
        InputError: The study's runtime is not built in.
    """
    config, run = workbench.inputs.config, workbench.run
    check_runtime(config.runtime.name)
    assert workbench.calibration  # in its file from here on
    settings = EvaluatorSettings(
        model=workbench.inputs.graph.path,
        calibration=run.calibration,
        contract=workbench.data.contract,
        dataset=workbench.data.search,
        cache=run.image_cache,
        runtime=config.runtime.name,
        threads=config.runtime.threads,
        workers=max(1, worker_count() // config.runtime.threads),
        weights=weight_settings(config.weights),
        timing=TimingProtocol(**config.timing.model_dump()) if "latency_ms" in config.objectives else None,
        predictions=run.predictions,
        log=run.path / "evaluator.log",
    )
    with ChildEvaluator(settings) as evaluator:
        yield evaluator


def check_runtime(name: str) -> None:
    """Refuses a runtime that is not built in.

    Raises:
        InputError: It is not.
    """
    if name not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise InputError(f"runtime {name!r} is not one of {known}{nearest(name, RUNTIMES)}")


def weight_settings(weights: WeightsSection) -> WeightSettings:
    """The study's weight settings as the quantizer takes them."""
    return WeightSettings(weights.method, Granularity(weights.granularity), weights.block_size)
