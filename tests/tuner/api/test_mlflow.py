"""Optuna's own callback brings every trial's figures to MLflow, here to its file store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install tuner[mlflow]")
pytest.importorskip("optuna_integration", reason="optuna-integration is not installed: pip install tuner[mlflow]")


@pytest.mark.parametrize("layers", [12, 130])
def test_every_trial_is_a_run_with_its_figures(
    told: Callable[..., list[FrozenTrial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    """Also of models with more layers than MLflow takes parameters at once."""
    from mlflow import MlflowClient
    from optuna_integration import MLflowCallback

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "mlruns").as_uri()
    names = ["map_50_95", "latency_ms"]
    ended = told(MLflowCallback(tracking_uri=store, metric_name=names), layers)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = {one.info.run_name: one.data for one in client.search_runs([experiment.experiment_id])}
    assert set(found) == {str(trial.number) for trial in ended}
    for trial in ended:
        data = found[str(trial.number)]
        assert [data.metrics[name] for name in names] == pytest.approx(trial.values)
        assert len(data.params) == layers
        assert data.params == {name.lstrip("/"): value for name, value in trial.params.items()}
