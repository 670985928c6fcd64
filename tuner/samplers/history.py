"""What a study holds, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.samplers.problem import Floats, Ints, Problem


@dataclass(frozen=True)
class History:
    """Trials of a study.

    Attributes:
        schemes: Of complete trials, shape ``(n, groups)``.
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
        if trial.state is TrialState.COMPLETE:
            found = _values(trial, problem)
            if found is not None:
                schemes.append(scheme)
                values.append(found)
                agreement.append(float(_scores(trial).get("agreement", np.nan)))
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


def _scores(trial: FrozenTrial) -> Mapping[str, Any]:
    scores = trial.user_attrs.get("scores", {})
    return scores if isinstance(scores, dict) else {}


def _values(trial: FrozenTrial, problem: Problem) -> Sequence[float] | None:
    """Values of all objectives; of the size where it is only bounded from the scores, which tell it exactly."""
    told = iter(trial.values)
    size = _scores(trial).get("size", {}).get("weight_bytes")
    found = [next(told) if o.optimised else size and size / 2**20 for o in problem.objectives]
    return None if any(value is None for value in found) else [float(value) for value in found]
