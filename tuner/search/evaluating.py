"""One trial: evaluated, durable, told, shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from objectives.objective_set import ObjectiveSet
from objectives.scores import Failure, Outcome, Scores, Screened, checked
from search_spaces.allocation import Allocation
from tuner.search.front import front_of
from tuner.search.progress_view import Progress
from tuner.search.screening import leaders
from tuner.search.session import Session
from tuner.search.trials import UNSTABLE, Trials, counted
from tuner.study.config import StudyConfig
from tuner.terminal.signals import Interrupted


def evaluate_trial(session: Session, trial: Trial, allocation: Allocation, total: int) -> tuple[Outcome, bool]:
    """Evaluates one trial, makes its result durable, tells it, and shows where the study stands.

    Args:
        session: This worker's part in the study.
        trial: That was asked for.
        allocation: Its scheme.
        total: Trials in all.

    Returns:
        What came of it, and whether it named a pair that cannot be built.

    Raises:
        Interrupted: By a signal; the trial was queued again.
    """
    trials, locks, view, reference = session.trials, session.locks, session.view, session.reference
    config, run = trials.config, trials.run
    result = run.evaluation(allocation)
    if result is None:
        run.log("evaluating", trial=trial.number, digest=allocation.digest, worker=locks.worker)
        front = leaders(config, trials.records(), reference, trial.number) if config.search.screening else {}
        try:
            with view.waiting(f"trial {trial.number} is evaluated"), session.interrupts.allowed():
                result = checked(session.evaluator.evaluate(allocation, reference, front))
        except Interrupted:
            with locks.turn():
                trials.requeue(trial)
            raise
        run.save_evaluation(allocation, result)
        run.log("evaluated", trial=trial.number, digest=allocation.digest, **outcome(result, config.objective_set))
    trials.tell(trial, result)
    blocked = False
    if isinstance(result, Failure):
        if result.kind == UNSTABLE:
            view.message(f"warning: trial {trial.number} has no latency: {result.message}")
        with locks.turn():
            blocked = trials.block(trial, allocation, result)
        if blocked:
            run.log("blocked", layer=result.layer, format=allocation[result.layer], reason=result.message)
    view.update(progress(trials, config, reference, total))
    return result, blocked


def outcome(result: Outcome, objectives: ObjectiveSet) -> dict[str, Any]:
    """A result as the log of a run has it."""
    if isinstance(result, Failure):
        return {"failure": result.kind, "message": result.message}
    if isinstance(result, Screened):
        return {"screened": asdict(result.look), "seconds": dict(result.seconds)}
    return {
        objectives.maximised.name: objectives.maximised.value(result),
        "latency_ms": result.latency_ms,
        **({"noisy": True} if result.latency and result.latency.noisy else {}),
        "weight_bytes": result.size.weight_bytes,
        "seconds": dict(result.seconds),
        **({"reused": result.reused} if result.reused else {}),
    }


def progress(trials: Trials, config: StudyConfig, reference: Scores, total: int) -> Progress:
    """Where a study stands, for the terminal."""
    records = trials.records()
    ended = [record for record in records if record.scores or record.screened or record.failure]
    objectives = config.objective_set
    front = front_of(records, objectives, reference)
    done = counted(records)
    left = seconds_left(trials.study, total - done)
    return Progress(config.name, done, total, left, ended[-1] if ended else None, front, reference, objectives)


def seconds_left(study: optuna.Study, trials: int) -> float | None:
    """Estimates how long `trials` more will take, from the last ones; None before the first."""
    recent = trial_seconds(study)[-20:]
    return sum(recent) / len(recent) * max(0, trials) if recent else None


def trial_seconds(study: optuna.Study) -> list[float]:
    """How long each trial that ended took."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
