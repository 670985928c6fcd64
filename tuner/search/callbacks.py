"""Callbacks of Optuna's kind, told of every trial of a study that ends, whichever process evaluated it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

from optuna.study import Study
from optuna.trial import FrozenTrial

#: As `optuna.study.Study.optimize` takes them, so that those of `optuna_integration` serve here too.
Callback = Callable[[Study, FrozenTrial], None]


class Callbacks:
    """Tells functions of trials, each trial once, in order of their numbers.

    Trials that had ended before the first look are not told again: they were, when they ended.

    Args:
        functions: What to call; what one raises ends the run, which can be resumed.
    """

    def __init__(self, functions: Sequence[Callback] = ()) -> None:
        self._functions = tuple(functions)
        self._over: set[int] | None = None

    def tell(self, study: Study) -> None:
        """Calls the functions for all trials that ended since the last look; the first look only remembers."""
        if not self._functions:
            return
        ended = {trial.number: trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        new = [] if self._over is None else sorted(ended.keys() - self._over)
        self._over = set(ended)
        for number in new:
            for function in self._functions:
                function(study, _named(ended[number]))


def _named(trial: FrozenTrial) -> FrozenTrial:
    """The trial with names that a tracker takes: MLflow refuses what would be an absolute path if it were a file."""
    if not any(name.startswith("/") for name in trial.params):
        return trial
    named = copy(trial)
    named.params = {name.lstrip("/"): value for name, value in trial.params.items()}
    named.distributions = {name.lstrip("/"): value for name, value in trial.distributions.items()}
    return named
