"""The parts of Optuna that are not its public interface: all that the project uses of them, for Optuna 5.

A release of Optuna that changes one of them is answered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna._hypervolume.box_decomposition import get_non_dominated_box_bounds
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

Floats = NDArray[np.float64]

#: System attributes of a trial that hold its result: no page shows them. Older runs have them among the user's, without
#: the prefix.
SCORES, SCREENED = "tuner:scores", "tuner:screened"
_GENERATION, _PARENTS = ":generation", ":parent:"


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Id of a trial in its storage, which is not its number in the study."""
    return trial._trial_id


def running_trial(study: Study, frozen: FrozenTrial) -> Trial:
    """A trial that some process started, as if it had been asked for here: so it can be told."""
    return Trial(study, trial_id(frozen))


def finished(study: Study, trial: Trial) -> bool:
    """Whether the storage holds a trial as finished, by whomever."""
    return bool(study._storage.get_trial(trial_id(trial)).state.is_finished())


def propose(trial: Trial) -> None:
    """Makes sure that the sampler has drawn the trial as a whole, even where every parameter is queued.

    Optuna does so when this property is read; there NSGA-II marks the trial as one of a generation.
    """
    _ = trial.relative_params


def set_trial_attr(study: Study, trial: Trial | FrozenTrial, key: str, value: Any) -> None:
    """Sets a system attribute of a running trial."""
    study._storage.set_trial_system_attr(trial_id(trial), key, value)


def recorded(trial: FrozenTrial, key: str) -> Mapping[str, Any] | None:
    """What was recorded of a trial under `SCORES` or `SCREENED`; None where nothing was."""
    found = trial.system_attrs.get(key, trial.user_attrs.get(key.removeprefix("tuner:")))
    return found if isinstance(found, dict) else None


def update_study_attr(study: Study, key: str, value: Any) -> bool:
    """Sets a system attribute of a study unless it has that value; returns whether it was set."""
    if study_attr(study, key) == value:
        return False
    study._storage.set_study_system_attr(study._study_id, key, value)
    return True


def study_attr(study: Study, key: str) -> Any:
    """A system attribute of a study; None without one."""
    return study._storage.get_study_system_attrs(study._study_id).get(key)


def odd_attr(study: Study, trial: FrozenTrial | None = None) -> str | None:
    """Name of what a genetic sampler of Optuna's would fail over in a damaged storage; None where all is well.

    They keep the number of a trial's generation with the trial, and the ids of a generation's parents with the study.

    Args:
        study: The study.
        trial: The trial that is looked at, in place of the study itself.
    """
    attrs = study._storage.get_study_system_attrs(study._study_id) if trial is None else trial.system_attrs
    for key, value in attrs.items():
        numbers = [value] if key.endswith(_GENERATION) else value if _PARENTS in key else []
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            return key
    return None


def hypervolume(points: Iterable[Iterable[float]], worst: Floats) -> float:
    """Volume that points dominate, all minimised, up to a reference point; points beyond it add nothing.

    Args:
        points: Each of shape ``(objectives,)``.
        worst: The reference point, shape ``(objectives,)``.
    """
    inside = np.array([point for point in points if (np.array(point) <= worst).all()], dtype=np.float64)
    return float(compute_hypervolume(inside, worst)) if len(inside) else 0.0


def non_dominated_boxes(points: Floats, worst: Floats) -> tuple[Floats, Floats]:
    """Lower and upper corners of boxes that fill what points do not dominate, each of shape ``(boxes, objectives)``.

    Args:
        points: Shape ``(n, objectives)``, n >= 1, all better than `worst`.
        worst: The reference point, shape ``(objectives,)``.
    """
    lower, upper = get_non_dominated_box_bounds(points, worst)
    return lower, upper
