"""The worker processes of a study: watched, replaced when they die, ended together; wherever they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from objectives.runners.runner import RuntimeUnavailable
from search_spaces.errors import InputError
from search_spaces.regular import read_regular
from tuner.search.evaluating import progress
from tuner.search.loop import RepeatedFailureError
from tuner.search.session import Session
from tuner.search.trials import counted
from tuner.terminal.console import BAD_INPUT, DONE, ENVIRONMENT, FAILURES, STORAGE

#: Times that a worker dies and its successors die, one after the other, without any trial ended between.
MAX_DEATHS = 10
#: Time that workers have to queue their trials again.
GRACE_SECONDS = 4.0
_LOOK_SECONDS = 0.1


class WorkerStorageError(OSError):
    """A worker could not write; its last line says why."""


class Worker(Protocol):
    """A worker process, on this host or another; it ends when this process does, however that ends."""

    def poll(self) -> int | None:
        """Its exit status; None as long as it runs, or waits for a place to run."""

    def waiting(self) -> bool:
        """Whether it waits for a place to run."""

    def terminate(self) -> None:
        """Asks it to queue its trial again and to end."""

    def end(self, seconds: float) -> None:
        """Waits so long for its end, then kills it."""


#: Starts the worker of an index, for a run folder, with a file that its words are added to.
Start = Callable[[int, Path, Path], Worker]


def supervise(session: Session, count: int, start: Start, total: int) -> None:
    """Runs workers until each of them finds that nothing is left to do.

    Args:
        session: Of the study, whose run is prepared; its evaluator is closed.
        count: Number of workers.
        start: Starts one.
        total: Trials in all.

    Raises:
        Interrupted: By a signal; the workers have ended and their trials are queued again.
        RepeatedFailureError: A worker ended so, or workers die at once.
    """
    trials = session.trials
    path, folder = trials.run.path.resolve(), trials.run.workers.resolve()
    folder.mkdir(exist_ok=True)  # locks on a server need none
    logs = [folder / f"worker-{index}.log" for index in range(count)]
    workers: dict[int, Worker] = {}
    ended, deaths, over = counted(trials.records()), [0] * count, False
    session.callbacks.tell(trials.study)
    shown = ExitStack()
    try:
        shown.enter_context(session.view.waiting(lambda: f"{ended} of {total} trials are done"))
        for index, log in enumerate(logs):
            workers[index] = start(index, path, log)
        while workers:
            # Entered anew each time: a signal that arrives within a destructor is raised there, and lost.
            with session.interrupts.allowed():
                time.sleep(_LOOK_SECONDS)
                now = counted(trials.records())
                if now != ended:
                    ended, deaths = now, [0] * count
                    session.callbacks.tell(trials.study)
                    session.view.update(progress(trials, trials.config, session.reference, total))
                for index, worker in list(workers.items()):
                    status = worker.poll()
                    if over and worker.waiting():  # for a place that it may never get, and does not need
                        worker.end(0.0)
                        status = DONE
                    if status is None:
                        continue
                    if status == DONE:
                        del workers[index]
                        over = True
                        continue
                    _raise_for(status, logs[index])
                    deaths[index] += 1
                    trials.run.log("worker died", status=status, log=str(logs[index]))
                    if deaths[index] >= MAX_DEATHS:
                        raise RepeatedFailureError(
                            f"a worker and its successors died {MAX_DEATHS} times without a result (the last with "
                            f"status {status}): {last_line(logs[index])}; see {logs[index]}"
                        )
                    if over:
                        del workers[index]
                    else:
                        workers[index] = start(index, path, logs[index])
        session.callbacks.tell(trials.study)
    finally:
        shown.close()
        end(list(workers.values()))


def end(workers: list[Worker]) -> None:
    """Asks workers to end, and ends those that do not."""
    for worker in workers:
        worker.terminate()
    limit = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.end(max(0.0, limit - time.monotonic()))


def last_line(log: Path) -> str:
    """What a worker said last."""
    lines = read_regular(log).decode(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


def _raise_for(status: int, log: Path) -> None:
    """Raises what a worker's exit code says, where another worker would fare no better."""
    said = last_line(log).removeprefix("tuner: error: ")
    if status == FAILURES:
        raise RepeatedFailureError(said)
    if status == BAD_INPUT:
        raise InputError(said)
    if status == ENVIRONMENT:
        raise RuntimeUnavailable(said)
    if status == STORAGE:
        raise WorkerStorageError(said)
