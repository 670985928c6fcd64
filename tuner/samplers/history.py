"""What a study holds, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from objectives.objective import OBJECTIVES
from objectives.scores import Scores, Screened
from search_spaces.errors import InputError
from search_spaces.reading import record_of
from tuner.samplers.optuna_compat import SCORES, SCREENED, recorded
from tuner.samplers.problem import Floats, Ints, Problem


@dataclass(frozen=True)
class History:
    """Trials of a study.

    Attributes:
        schemes: Of complete trials, and of screened ones as the first look expects them, shape ``(n, groups)``. The
            scheme that dominates a screened one is among them: the front is that of complete trials.
        values: Of the problem's objectives, bounded-only quantities included, shape ``(n, objectives)``.
        agreement: Label-free agreement with the reference in (0, 1], shape ``(n,)``; NaN where a trial has none.
        running: Schemes that other workers evaluate now, shape ``(m, groups)``.
        held: All schemes that the study holds in any state, these aside that were cut short.
    """

    schemes: Ints
    values: Floats
    agreement: Floats
    running: Ints
    held: frozenset[bytes]


def read_history(study: Study, problem: Problem, asked: int = -1) -> History:
    """Reads the trials of a study.

    Args:
        study: The study; its values are the problem's optimised objectives, in order.
        problem: The search.
        asked: Number of the trial that is being asked for, left out.
    """
    schemes, values, agreement, running, held = [], [], [], [], set()
    for trial in study.get_trials(deepcopy=False):
        scheme = None if trial.number == asked else _scheme(trial, problem)
        if scheme is None:
            continue
        held.add(scheme.tobytes())
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            found = _values(trial, problem)
            if found is not None:
                schemes.append(scheme)
                values.append(found)
                agreement.append(float(_measured(trial).get("agreement", np.nan)))
        elif trial.state in (TrialState.RUNNING, TrialState.WAITING):
            running.append(scheme)
    groups = problem.groups
    return History(
        np.array(schemes, dtype=np.int64).reshape(-1, groups),
        np.array(values, dtype=np.float64).reshape(-1, len(problem.objectives)),
        np.array(agreement, dtype=np.float64),
        np.array(running, dtype=np.int64).reshape(-1, groups),
        frozenset(held),
    )


def _scheme(trial: FrozenTrial, problem: Problem) -> Ints | None:
    params = trial.params
    if len(params) < problem.groups:
        params = {**trial.system_attrs.get("fixed_params", {}), **params}
    try:
        return problem.encode(params)
    except KeyError:  # of another space, or not chosen yet
        return None


def _measured(trial: FrozenTrial) -> Mapping[str, Any]:
    return recorded(trial, SCORES) or recorded(trial, SCREENED) or {}


def _values(trial: FrozenTrial, problem: Problem) -> Sequence[float] | None:
    """Values of all objectives, from the result where the study has none: bounded quantities, and screened trials."""
    told = iter(trial.values or ())  # a damaged database may hold fewer
    complete, result = trial.state is TrialState.COMPLETE, None
    found: list[float] = []
    for target in problem.objectives:
        if complete and target.optimised:
            value = next(told, None)
        else:
            result = result or _result(trial)
            value = OBJECTIVES.get(target.name).value(result) if result is not None else None
        if value is None:
            return None
        found.append(float(value))
    return found


def _result(trial: FrozenTrial) -> Scores | Screened | None:
    try:
        if trial.state is TrialState.COMPLETE:
            return Scores.from_json(_measured(trial))
        return record_of(Screened, _measured(trial), "screened")
    except InputError:  # a damaged database
        return None
