"""The evaluator: child processes that live from trial to trial; whatever ends one comes back as a value."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from objectives.devices.waiting import TOLD, told
from objectives.evaluation.bench import Bench, Built, UnstableError
from objectives.evaluation.settings import EvaluatorSettings
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.probing import LayerCosts
from objectives.runtimes.registry import builds_engines
from objectives.scores import Failure, Latency, Outcome, Scores, Screened
from objectives.tasks.detection.predict import NonFiniteOutputError
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.regular import open_appending, open_regular
from search_spaces.spawned import Descriptor, NoAnswer, Spawned

__all__ = ["Evaluator", "EvaluatorSettings"]

Answer = Scores | Screened | Latency | LayerCosts | Built | Failure
# Failures that leave a CUDA context behind in which every further call fails.
_FATAL = ("device",)


class Evaluator:
    """Scores allocations in a child process, which a failure of the runtime cannot outlive.

    The child keeps the model, the images, the quantized weights and the reference session, so only the first
    evaluation pays for them. After a crash or a hang the next call starts a new one.

    Engines are built in a second child. A process that has built runs engines slower: on an H200 the fp16 engine of
    YOLOv8n took 0.551 ms in the process that had built it, 0.505 ms in a fresh one, and the ratio of two engines moved
    by 4 %. And its first build is the dearest, so a failure of the scoring child must not end it.

    Args:
        settings: Of the study.
    """

    def __init__(self, settings: EvaluatorSettings) -> None:
        self._settings = settings
        self._bench = _child(settings, "evaluating")
        self._builder = _child(settings, "building") if builds_engines(settings.runtime) else None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reference(self) -> Scores:
        """Scores the unquantized model.

        Raises:
            InputError: It cannot be scored here; the message says why.
        """
        result = self._call("reference", None)
        if isinstance(result, Failure):
            raise InputError(f"{self._settings.model}: the reference cannot be scored: {result.message}")
        assert isinstance(result, Scores)
        return result

    def evaluate(self, allocation: Allocation, reference: Scores, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation, or says why it has no scores; arguments as of `Bench.evaluate`."""
        result = self._call("evaluate", allocation, reference, *([front] if front else []))
        assert isinstance(result, Outcome)
        return result

    def time(self, allocation: Allocation) -> Latency | Failure:
        """Times one allocation against the reference once more, or says why it cannot be timed."""
        result = self._call("time", allocation)
        assert isinstance(result, Latency | Failure)
        return result

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        """Builds one allocation's engine and profiles its layers, or says why there is none."""
        result = self._call("costs", allocation)
        assert isinstance(result, LayerCosts | Failure)
        return result

    def close(self) -> None:
        """Ends the children."""
        for child in (self._bench, self._builder):
            if child is not None:
                child.close()

    def _call(self, verb: str, allocation: Allocation | None, *more: object) -> Answer:
        begin = self._log_size()
        built = self._ask(self._builder, "build", allocation) if self._builder is not None else None
        result = built if isinstance(built, Failure) else self._ask(self._bench, verb, allocation, *more)
        if isinstance(built, Built) and isinstance(result, Scores | Screened):
            steps = {**result.seconds, "build": round(built.seconds + result.seconds["build"], 4)}
            result = replace(result, seconds=steps, engine_bytes=built.bytes, engine=built.digest)
        if isinstance(result, Failure) and allocation is not None:
            return self._with_log(result, allocation, begin)
        return result

    def _ask(self, child: Spawned, *question: Any) -> Answer:
        """A child's answer, or why there is none."""
        try:
            result: Answer = child.ask(*question, seconds=self._settings.runtime.limit_s)
        except NoAnswer as error:
            return Failure(error.kind, str(error))
        assert isinstance(result, Answer), result
        if isinstance(result, Failure) and result.kind in _FATAL:
            child.close()
        return result

    def _log_size(self) -> int:
        log = self._settings.log
        return log.stat().st_size if log is not None and log.is_file() else 0

    def _with_log(self, failure: Failure, allocation: Allocation, begin: int) -> Failure:
        """Keeps what the child wrote since `begin`, so that a failure can be looked into later."""
        log, folder = self._settings.log, self._settings.failures
        if log is None or folder is None or not log.is_file():
            return failure
        with open_regular(log) as file:
            file.seek(begin)
            text = file.read()
        kept = folder / f"{allocation.digest}.log"
        write_durably(kept, text + f"{failure.kind}: {failure.message}\n".encode())
        return replace(failure, log=f"{folder.name}/{kept.name}")


def _child(settings: EvaluatorSettings, task: str) -> Spawned:
    """A process that answers with a bench of its own."""

    def given() -> tuple[Any, ...]:
        return settings, Descriptor(told()) if sys.platform != "win32" else None

    return Spawned(task, _benched, given)


def _benched(settings: EvaluatorSettings, seen: int | None) -> Callable[..., Answer]:
    """In the child: answers ``(verb, allocation, ...)``; the bench is made for the first question."""
    if seen is not None:
        os.environ[TOLD] = str(seen)  # its own stderr is a log from here on
    if settings.log is not None:
        with open_appending(settings.log) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    made: list[Bench] = []

    def answer(verb: str, *given: Any) -> Answer:
        try:
            if not made:
                made.append(Bench(settings))
            bench = made[0]
            result: Answer = bench.reference() if verb == "reference" else getattr(bench, verb)(*given)
            return result
        except MemoryError as error:
            return Failure("memory", str(error) or "out of memory while evaluating")
        except BuildError as error:
            return Failure("memory" if error.memory else "build", str(error), layer=error.layer)
        except UnstableError as error:
            return Failure("unstable", str(error))
        except NonFiniteOutputError as error:  # of the reference: a scheme's comes back as a value
            return Failure("nan", str(error))
        except (InputError, RuntimeUnavailable) as error:
            return Failure("build", str(error))
        except Exception as error:
            traceback.print_exc()
            # Told apart by name: importing the class would need CUDA's bindings everywhere.
            fault = "device" if type(error).__name__ == "CudaError" else "error"
            return Failure(fault, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    return answer
