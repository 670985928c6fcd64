"""What the tests of Optuna's callbacks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

import tuner
from tuner.search.callbacks import Callback


@pytest.fixture
def told(study_file: Callable[..., Path], tmp_path: Path) -> Callable[[Callback, int], list[FrozenTrial]]:
    """Runs a study of a model of so many layers with a callback, and returns its trials."""

    def run(callback: Callback, layers: int) -> list[FrozenTrial]:
        study = study_file(layers=layers)
        done = tuner.run(study, trials=8, folder=tmp_path / "run", callbacks=[callback], steps=tuner.silent)
        ended = [trial for trial in done.study.trials if trial.state.is_finished()]
        assert len(ended) == 8
        return ended

    return run
