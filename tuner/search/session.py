"""What one process works with while it searches."""

from __future__ import annotations

from dataclasses import dataclass, field

from objectives.runtimes.runtime import StudyEvaluator
from objectives.scores import Scores
from tuner.search.callbacks import Callbacks
from tuner.search.progress_view import LiveView
from tuner.search.trials import Trials
from tuner.search.worker_locks import WorkerLocks
from tuner.terminal.signals import Interrupts


@dataclass(frozen=True)
class Session:
    """One worker's part in a study, from its start or resumption to its end.

    Attributes:
        trials: The study.
        locks: Of this worker.
        evaluator: Scores allocations.
        reference: Scores of the unquantized model.
        interrupts: Where signals arrive.
        view: Shows each result.
        draw: Changes the sampler's random numbers: workers that start together must not propose alike.
        start: Trials that were done when the study was extended; patience counts from there.
        callbacks: Told of every trial that ends.
    """

    trials: Trials
    locks: WorkerLocks
    evaluator: StudyEvaluator
    reference: Scores
    interrupts: Interrupts
    view: LiveView
    draw: int = 0
    start: int = 0
    callbacks: Callbacks = field(default_factory=Callbacks)
