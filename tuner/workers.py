"""The worker processes of one host: started, watched, replaced when they die, ended together."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from objectives.runners.runner import RuntimeUnavailable
from objectives.scores import Scores
from search_spaces.errors import InputError
from tuner.console import BAD_INPUT, DONE, ENVIRONMENT, FAILURES, STORAGE
from tuner.interrupts import Interrupts
from tuner.live import LiveView
from tuner.search import RepeatedFailureError, progress
from tuner.trials import Trials, counted

#: Workers that die one after the other without any trial ended between them.
MAX_DEATHS = 10
#: Time that workers have to queue their trials again.
GRACE_SECONDS = 4.0
_LOOK_SECONDS = 0.1


class WorkerStorageError(OSError):
    """A worker could not write; its last line says why."""


def supervise(
    trials: Trials, count: int, reference: Scores, total: int, interrupts: Interrupts, view: LiveView
) -> None:
    """Runs workers until each of them finds that nothing is left to do.

    Args:
        trials: The study; its run is prepared.
        count: Number of workers.
        reference: Scores of the unquantized model.
        total: Trials in all.
        interrupts: Where signals arrive.
        view: Shows the results.

    Raises:
        Interrupted: By a signal; the workers have ended and their trials are queued again.
        RepeatedFailureError: A worker ended so, or workers die at once.
    """
    folder = trials.run.workers
    folder.mkdir(exist_ok=True)  # claims on a server need none
    logs = [folder / f"worker-{index}.log" for index in range(count)]
    workers: list[subprocess.Popen[bytes] | None] = [_start(trials.run.path, log) for log in logs]
    ended, deaths = counted(trials.records()), 0
    try:
        while any(workers):
            # Entered anew each time: a signal that arrives within a destructor is raised there, and lost.
            with interrupts.allowed():
                time.sleep(_LOOK_SECONDS)
                now = counted(trials.records())
                if now != ended:
                    ended, deaths = now, 0
                    view.update(progress(trials, trials.config, reference, total))
                for index, worker in enumerate(workers):
                    if worker is None or worker.poll() is None:
                        continue
                    if worker.returncode == DONE:
                        workers[index] = None
                        continue
                    _raise_for(worker.returncode, logs[index])
                    deaths += 1
                    trials.run.log("worker died", status=worker.returncode, log=str(logs[index]))
                    if deaths >= MAX_DEATHS:
                        raise RepeatedFailureError(
                            f"{deaths} workers died without a result (the last with status {worker.returncode}): "
                            f"{_last_line(logs[index])}; see {logs[index]}"
                        )
                    workers[index] = _start(trials.run.path, logs[index])
    finally:
        end([worker for worker in workers if worker is not None])


def end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Asks workers to end, and ends those that do not."""
    for worker in workers:
        worker.terminate()
    limit = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        finally:
            if worker.stdin is not None:
                worker.stdin.close()


def _start(run: Path, log: Path) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, out of reach of the terminal's Ctrl-C; it ends with our end of its stdin."""
    command = [sys.executable, "-m", "tuner", "worker", str(run), "--attached"]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True)


def _raise_for(status: int, log: Path) -> None:
    """Raises what a worker's exit code says, where another worker would fare no better."""
    said = _last_line(log).removeprefix("tuner: error: ")
    if status == FAILURES:
        raise RepeatedFailureError(said)
    if status == BAD_INPUT:
        raise InputError(said)
    if status == ENVIRONMENT:
        raise RuntimeUnavailable(said)
    if status == STORAGE:
        raise WorkerStorageError(said)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
