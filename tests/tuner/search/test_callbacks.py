"""Callbacks of Optuna's kind: each trial once, whoever evaluated it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.launch import launch, resume
from tuner.results.loaded import load_run
from tuner.search.trials import counted
from tuner.study.study_file import read_study


@pytest.mark.parametrize("workers", [1, 2])
def test_every_trial_is_told_once(study_file: Callable[..., Path], tmp_path: Path, workers: int) -> None:
    told: list[tuple[int, TrialState, tuple[float, ...]]] = []

    def callback(study: Study, trial: FrozenTrial) -> None:
        assert study.metric_names == ["map_50_95", "latency_ms"]
        told.append((trial.number, trial.state, tuple(trial.values or ())))

    path = study_file(search={"trials": 9})
    run = launch(read_study(path), tmp_path / "run", workers=workers, callbacks=[callback]).path
    assert sorted(number for number, _, _ in told) == list(range(9))
    resume(run, trials=12, callbacks=[callback])
    trials = load_run(run).trials.study.trials
    assert sorted(told) == sorted((t.number, t.state, tuple(t.values or ())) for t in trials)
    assert len(told) == 12


def test_what_a_callback_raises_ends_the_run_which_goes_on_later(
    study_file: Callable[..., Path], tmp_path: Path
) -> None:
    def callback(study: Study, trial: FrozenTrial) -> None:
        raise ConnectionError(f"no server for trial {trial.number}")

    with pytest.raises(ConnectionError, match="no server for trial 0"):
        launch(read_study(study_file(search={"trials": 4})), tmp_path / "run", callbacks=[callback])
    assert counted(load_run(resume(tmp_path / "run").path).records) == 4
