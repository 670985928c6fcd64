"""The search itself: ask, evaluate, make durable, tell, until enough trials are done."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import optuna
from optuna.storages import RDBStorage

from objectives.objective import milliseconds
from objectives.runtimes.runtime import StudyEvaluator
from objectives.scores import Failure, Scores, checked
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.reading import record_of
from search_spaces.unsupported import Unsupported
from tuner.samplers import make_sampler
from tuner.samplers.problem import Problem
from tuner.search.evaluating import evaluate_trial, outcome, progress, trial_seconds
from tuner.search.low_reference import too_low
from tuner.search.progress_view import LiveView
from tuner.search.records import noise_of
from tuner.search.session import Session
from tuner.search.stopping import Patience
from tuner.search.trials import BLOCKED, INTERRUPTED, UNSTABLE, Trials, counted, directions
from tuner.search.worker_locks import WorkerLocks
from tuner.study.config import StudyConfig
from tuner.study.identity import read_manifest
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json, read_text
from tuner.study.storage import damage_named
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent

#: Equal failures in a row that end a study.
MAX_EQUAL_FAILURES = 5
# Between two looks of a worker that has nothing to do but to outlive the others.
_WAIT_SECONDS = 0.2


class RepeatedFailureError(RuntimeError):
    """The same failure ended several trials in a row."""


def open_trials(
    run: RunFolder, *, inputs: Inputs, storage: RDBStorage, locks: WorkerLocks, blocked: Unsupported | None = None
) -> Trials:
    """Opens the study of a run as one worker sees it, creating it where there is none yet.

    Args:
        run: Where evaluations are made durable.
        inputs: The study.
        storage: Where Optuna keeps its trials.
        locks: Of the worker.
        blocked: Pairs that probing found the target cannot build; failing trials add to them.
    """
    config = inputs.config
    pairs = (blocked or Unsupported()).union(read_blocked(run))
    with damage_named(run.database, config.storage):
        trials = Trials(_open_study(storage, config, run), inputs.space, config, run, pairs, locks.worker)
        trials.records()
    return trials


def queue(trials: Trials, locks: WorkerLocks, seeds: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Settles what earlier sittings left behind, and queues the seeds.

    Args:
        trials: The study.
        locks: Of the worker.
        seeds: ``(origin, choices)`` to run first.
    """
    with locks.turn():
        _settle(trials, locks)
        trials.enqueue(seeds)


def search(session: Session, problem: Problem, total: int) -> None:
    """Works, alone or beside others, until the study holds `total` trials or there is another reason to end.

    The others: its hours are over, its patience is, or the space is empty.

    Args:
        session: This worker's part in the study.
        problem: What its sampler knows before the first trial.
        total: Trials in all, earlier sittings and other workers included.

    Raises:
        Interrupted: By a signal; the running trial was queued again.
        RepeatedFailureError: The same failure ended five trials in a row.
    """
    trials, locks, interrupts, view = session.trials, session.locks, session.interrupts, session.view
    settings, draw = trials.config.search, len(trials.study.trials) + session.draw
    trials.study.sampler = make_sampler(settings.sampler, problem, settings.seed, draw, trials.repair_choices)
    patience = Patience(problem, session.reference, settings.patience, session.start)
    before = _over(trials.study)
    session.callbacks.tell(trials.study)
    view.update(progress(trials, trials.config, session.reference, total))
    while True:
        with interrupts.allowed(), ExitStack() as waiting:
            waiting.enter_context(locks.turn())
            turn = waiting.pop_all()
        with turn:
            _settle(trials, locks)
            session.callbacks.tell(trials.study)
            if _ended(trials, total, patience, view):
                return
            asked = trials.ask() if _wanted(trials, total) else None
        if asked is None:  # the others evaluate the last trials; one of them may die
            with interrupts.allowed():
                time.sleep(_WAIT_SECONDS)
            continue
        result, blocked = evaluate_trial(session, *asked, total)
        if blocked:
            before = _over(trials.study)  # a layer less that can fail: this is progress
        if isinstance(result, Failure) and _repeated(trials.study, before):
            raise RepeatedFailureError(
                f"{MAX_EQUAL_FAILURES} trials in a row failed alike ({result.kind}): {result.message}; "
                f"see {trials.run.log_file}, then `tuner resume {trials.run.path}`"
            )


def begin(session: Session, total: int) -> int:
    """Evaluates what is queued, before anybody could propose more: no other worker is there yet.

    Args:
        session: As for `search`.
        total: As there.

    Returns:
        How many trials ended.

    Raises:
        Interrupted: As there.
    """
    trials = session.trials
    before, ended = _over(trials.study), 0
    session.callbacks.tell(trials.study)
    while True:
        records = trials.records()
        if counted(records) >= total or not any(record.state == "WAITING" for record in records):
            return ended
        with session.locks.turn():
            asked = trials.ask()
        result, blocked = evaluate_trial(session, *asked, total)
        ended += 1
        session.callbacks.tell(trials.study)
        if isinstance(result, Failure) and not blocked and _repeated(trials.study, before):
            return ended  # the search itself will say so


def _settle(trials: Trials, locks: WorkerLocks) -> None:
    trials.blocked = trials.blocked.union(read_blocked(trials.run))
    told, queued = trials.settle(locks.alive)
    if told or queued:
        trials.run.log("repaired", told=told, queued=queued)


def _ended(trials: Trials, total: int, patience: Patience, view: LiveView) -> bool:
    """Whether nothing is left to do, for this worker or any other."""
    records = trials.records()
    if counted(records) >= total or _out_of_time(trials.study, trials.config):
        return True
    if reason := patience.over(trials):
        trials.run.log("stopped", reason=reason)
        view.message(reason)
        return True
    if any(record.state in ("WAITING", "RUNNING") for record in records) or not trials.exhausted():
        return False
    view.message("every scheme of the space has been tried")
    return True


def _wanted(trials: Trials, total: int) -> bool:
    """Whether one more trial is to start, given that those that run now will count."""
    records = trials.records()
    running = sum(record.state == "RUNNING" for record in records)
    if counted(records) + running >= total:
        return False
    return any(record.state == "WAITING" for record in records) or not trials.exhausted()


def _over(study: optuna.Study) -> frozenset[int]:
    """Numbers of the trials that have ended."""
    return frozenset(trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished())


def _repeated(study: optuna.Study, before: frozenset[int]) -> bool:
    """Whether the last trials of the study that were not over `before`, whoever evaluated them, failed alike.

    They are told apart by number: clocks are set back, and differ from host to host.
    """
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    ended = [trial for trial in trials if trial.state.is_finished() and trial.number not in before]
    failures = [trial.user_attrs.get("failure") for trial in ended]
    kinds = [_kind(record_of(Failure, failure, "failure")) if failure else "" for failure in failures]
    harmless = (f"{INTERRUPTED}:", f"{BLOCKED}:", f"{UNSTABLE}:")  # a noisy machine says nothing of the schemes
    last = [kind for kind in kinds if not kind.startswith(harmless)][-MAX_EQUAL_FAILURES:]
    return len(last) == MAX_EQUAL_FAILURES and len(set(last)) == 1 and last[0] != ""


def read_blocked(run: RunFolder) -> Unsupported:
    """Pairs that earlier trials of the run found the target cannot build."""
    return Unsupported.from_json(read_text(run.blocked)) if run.blocked.exists() else Unsupported()


def score_reference(run: RunFolder, evaluator: StudyEvaluator, inputs: Inputs, steps: Steps = silent) -> Scores:
    """Scores of the unquantized model: measured once per run, before any trial.

    Args:
        run: Where they are kept.
        evaluator: Scores it.
        inputs: The study.
        steps: Shows progress.

    Raises:
        InputError: It is so bad that there is nothing to lose.
    """
    if run.reference.is_file():
        return read_json(run.reference, Scores)
    with steps("scoring the unquantized model", 1):
        scores = checked(evaluator.reference())
    if isinstance(scores, Failure):
        raise InputError(f"model.path: {inputs.graph.path}: the reference's {scores.message}; check model and runtime")
    if problem := too_low(run, inputs, scores):
        raise InputError(f"model.path: {inputs.graph.path} {problem}")
    write_durably(run.reference, json.dumps(scores.to_json()))
    run.log("reference", **outcome(scores, inputs.config.objective_set))
    if noise := noise_of(scores.latency, scores.latency_ms):
        say(
            f"warning: the machine is noisy: the reference takes {milliseconds(scores.latency_ms)} ms "
            f"({noise}); for steadier figures free the machine, raise timing.min_seconds, or lower runtime.threads"
        )
    return scores


def _open_study(storage: RDBStorage, config: StudyConfig, run: RunFolder) -> optuna.Study:
    study = optuna.create_study(
        study_name=config.name,
        storage=storage,
        directions=directions(config.objective_set),
        sampler=optuna.samplers.RandomSampler(config.search.seed),
        load_if_exists=True,
    )
    if study.metric_names != list(config.objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(config.objectives))
    if "run" not in study.user_attrs:
        study.set_user_attr("run", read_manifest(run)["id"])
    folder = str(run.path.resolve())  # where workers that know the storage alone find the rest
    if study.user_attrs.get("folder") != folder:
        study.set_user_attr("folder", folder)
    return study


def _out_of_time(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether the trials of all sittings took longer than ``search.hours``."""
    if config.search.hours is None:
        return False
    return sum(trial_seconds(study)) > 3600 * config.search.hours


def _kind(failure: Failure) -> str:
    """What makes two failures alike: kind and message, numbers aside."""
    return f"{failure.kind}: {re.sub(r'[0-9]+', '#', failure.message)}"
