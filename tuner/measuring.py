"""Opens runners and the evaluator of the study's runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError

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
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    return OnnxRuntimeRunner(model, threads, cuda=runtime == "onnxruntime-cuda")


def worker_count() -> int:
    """Python threads for scoring: one per physical core."""
    return psutil.cpu_count(logical=False) or 1


@contextmanager
def open_evaluator(workbench: Workbench) -> Iterator[Evaluator]:
    """Starts the evaluator of a study: one child process that lives from trial to trial."""
    from objectives.evaluator import Evaluator as ChildEvaluator

    with ChildEvaluator(evaluator_settings(workbench)) as evaluator:
        yield evaluator
