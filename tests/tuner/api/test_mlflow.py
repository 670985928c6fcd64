"""Optuna's own callback brings every trial's figures to MLflow, here to its file store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tuner

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install tuner[mlflow]")
pytest.importorskip("optuna_integration", reason="optuna-integration is not installed: pip install tuner[mlflow]")


@pytest.mark.parametrize("layers", [12, 130])
def test_every_trial_is_a_run_with_its_figures(
    study_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    """Also of models with more layers than MLflow takes parameters at once."""
    from mlflow import MlflowClient
    from optuna_integration import MLflowCallback

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "mlruns").as_uri()
    names = ["map_50_95", "latency_ms"]
    told = tuner.run(
        study_file(layers=layers),
        trials=8,
        folder=tmp_path / "run",
        callbacks=[MLflowCallback(tracking_uri=store, metric_name=names)],
        steps=tuner.silent,
    )
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = {one.info.run_name: one.data for one in client.search_runs([experiment.experiment_id])}
    ended = [trial for trial in told.study.trials if trial.state.is_finished()]
    assert set(found) == {str(trial.number) for trial in ended} and len(ended) == 8
    for trial in ended:
        data = found[str(trial.number)]
        assert [data.metrics[name] for name in names] == pytest.approx(trial.values)
        assert len(data.params) == layers
        assert data.params == {name.lstrip("/"): value for name, value in trial.params.items()}
