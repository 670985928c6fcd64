"""The search itself: ask, evaluate, make durable, tell, until enough trials are done."""

from __future__ import annotations

import json
import re
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from objectives.scores import Failure, Scores
from search_spaces.allocation import Allocation
from search_spaces.blocked import Blocked
from search_spaces.errors import InputError
from tuner.config import StudyConfig
from tuner.front import front_of
from tuner.identity import read_manifest
from tuner.interrupts import Interrupted, Interrupts
from tuner.live import LiveView, Progress
from tuner.prepare import Inputs
from tuner.run_folder import RunFolder, read_json, write_durably
from tuner.samplers import make_sampler
from tuner.trials import Trials, counted
from tuner.workbench import Evaluator

#: Equal failures in a row that end a study.
MAX_EQUAL_FAILURES = 5
#: A reference below this mAP50-95 means that model and labels do not belong together.
MIN_REFERENCE_MAP = 0.05


class RepeatedFailureError(RuntimeError):
    """The same failure ended several trials in a row."""


def search(
    run: RunFolder,
    *,
    inputs: Inputs,
    storage: RDBStorage,
    evaluator: Evaluator,
    reference: Scores,
    seeds: Sequence[tuple[str, Mapping[str, str]]],
    total: int,
    interrupts: Interrupts,
    blocked: Blocked | None = None,
) -> None:
    """Works until the study holds `total` trials, its hours are over, or the space is exhausted.

    Args:
        run: Where evaluations are made durable.
        inputs: The study.
        storage: Where Optuna keeps its trials.
        evaluator: Scores allocations.
        reference: Scores of the unquantized model.
        seeds: ``(origin, choices)`` to run first.
        total: Trials in all, earlier sittings included.
        interrupts: Where signals arrive.
        blocked: Pairs that probing found the target cannot build; failing trials add to them.

    Raises:
        Interrupted: By a signal; the running trial was queued again.
        RepeatedFailureError: The same failure ended five trials in a row.
    """
    config = inputs.config
    study = _open_study(storage, config, run)
    trials = Trials(study, inputs.space, config, run, (blocked or Blocked()).union(read_blocked(run)))
    told, queued = trials.repair()
    trials.enqueue(seeds)
    if told or queued:
        run.log("repaired", told=told, queued=queued)
    search_for = config.search
    study.sampler = make_sampler(
        search_for.sampler, inputs.space, search_for.seed, len(study.trials), trials.repair_choices
    )
    streak: deque[str] = deque(maxlen=MAX_EQUAL_FAILURES)
    with LiveView() as view:
        view.update(_progress(trials, config, reference, total))
        while counted(trials.records()) < total and not _out_of_time(study, config):
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)) and trials.exhausted():
                view.message("every scheme of the space has been tried")
                break
            trial, allocation = trials.ask()
            result = run.evaluation(allocation)
            if result is None:
                try:
                    with interrupts.allowed():
                        result = _evaluate(evaluator, allocation, reference)
                except Interrupted:
                    trials.requeue(trial)
                    raise
                run.save_evaluation(allocation, result)
                run.log("evaluated", trial=trial.number, digest=allocation.digest, **_outcome(result))
            trials.tell(trial, result)
            if isinstance(result, Failure) and trials.block(trial, allocation, result):
                run.log("blocked", layer=result.layer, format=allocation[result.layer], reason=result.message)
                streak.clear()  # a layer less that can fail: this is progress
            view.update(_progress(trials, config, reference, total))
            streak.append(_kind(result))
            if len(streak) == MAX_EQUAL_FAILURES and len(set(streak)) == 1 and streak[0]:
                assert isinstance(result, Failure)
                raise RepeatedFailureError(
                    f"{MAX_EQUAL_FAILURES} trials in a row failed alike ({result.kind}): {result.message}; "
                    f"see {run.log_file}, then `tuner resume {run.path}`"
                )


def read_blocked(run: RunFolder) -> Blocked:
    """Pairs that earlier trials of the run found the target cannot build."""
    return Blocked.from_json(run.blocked.read_text(encoding="utf-8")) if run.blocked.is_file() else Blocked()


def _evaluate(evaluator: Evaluator, allocation: Allocation, reference: Scores) -> Scores | Failure:
    """Scores one allocation, its latency in the study's milliseconds.

    The unquantized allocation is scored like any other: its artifact and its ratio are measured, not assumed.
    """
    result = evaluator.evaluate(allocation)
    if isinstance(result, Failure) or result.latency is None:
        return result
    return replace(result, latency_ms=reference.latency_ms * result.latency.ratio)


def score_reference(run: RunFolder, evaluator: Evaluator, inputs: Inputs) -> Scores:
    """Scores of the unquantized model: measured once per run, before any trial.

    Raises:
        InputError: Its mAP is so low that model and labels cannot belong together.
    """
    if run.reference.is_file():
        return Scores.from_json(read_json(run.reference))
    scores = evaluator.reference()
    found = scores.accuracy.map_50_95
    if found < MIN_REFERENCE_MAP:
        raise InputError(
            f"model.path: {inputs.graph.path} scores mAP50-95 {found:.4f} on data.annotations; model and "
            "labels do not match: check the annotations, or set model.classes, model.head, model.image_size"
        )
    write_durably(run.reference, json.dumps(scores.to_json()))
    run.log("reference", **_outcome(scores))
    return scores


def _open_study(storage: RDBStorage, config: StudyConfig, run: RunFolder) -> optuna.Study:
    study = optuna.create_study(
        study_name=config.name,
        storage=storage,
        directions=["maximize" if name == "map_50_95" else "minimize" for name in config.objectives],
        sampler=optuna.samplers.RandomSampler(config.search.seed),
        load_if_exists=True,
    )
    if study.metric_names != list(config.objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(config.objectives))
    if "run" not in study.user_attrs:
        study.set_user_attr("run", read_manifest(run)["id"])
    return study


def _out_of_time(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether the trials of all sittings took longer than ``search.hours``."""
    if config.search.hours is None:
        return False
    return sum(_seconds(study)) > 3600 * config.search.hours


def _seconds(study: optuna.Study) -> list[float]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [trial.duration.total_seconds() for trial in trials if trial.duration is not None]


def _progress(trials: Trials, config: StudyConfig, reference: Scores, total: int) -> Progress:
    records = trials.records()
    ended = [record for record in records if record.scores or record.failure]
    front = front_of(records, config.objectives, reference, bounds=config.constraints)
    done = counted(records)
    left = seconds_left(trials.study, total - done)
    return Progress(config.name, done, total, left, ended[-1] if ended else None, front, reference)


def _outcome(result: Scores | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"failure": result.kind, "message": result.message}
    return {
        "map_50_95": result.accuracy.map_50_95,
        "latency_ms": result.latency_ms,
        "weight_bytes": result.size.weight_bytes,
        "seconds": dict(result.seconds),
    }


def _kind(result: Scores | Failure) -> str:
    """What makes two failures alike: kind and message, numbers aside; empty for scores."""
    return "" if isinstance(result, Scores) else f"{result.kind}: {re.sub(r'[0-9]+', '#', result.message)}"


def seconds_left(study: optuna.Study, trials: int) -> float | None:
    """Estimates how long `trials` more will take, from the last ones; None before the first."""
    recent = _seconds(study)[-20:]
    return sum(recent) / len(recent) * max(0, trials) if recent else None
