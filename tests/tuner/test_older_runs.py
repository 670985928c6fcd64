"""Runs of older versions are read and resumed: their layers had long names in Optuna, their results lay open there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.launch import launch, resume
from tuner.results.loaded import load_run
from tuner.search.trials import counted
from tuner.study.study_file import read_study


def test_a_run_with_long_names_and_open_results_is_resumed(
    study_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = study_file(search={"trials": 6}), tmp_path / "run"
    with monkeypatch.context() as older:
        older.setattr("search_spaces.groups.short_names", list)
        launch(read_study(path), run)
    long = set(load_run(run).space.parameters())
    with sqlite3.connect(run / "study.db") as database:  # as results were kept then
        rows = "SELECT trial_id, 'scores', value_json FROM trial_system_attributes WHERE key = 'tuner:scores'"
        database.execute(f"INSERT INTO trial_user_attributes (trial_id, key, value_json) {rows}")
        database.execute("DELETE FROM trial_system_attributes WHERE key = 'tuner:scores'")
    database.close()
    before = load_run(run).records
    assert sum(record.scores is not None for record in before) == 6
    resume(run, trials=9)
    loaded = load_run(run)
    assert counted(loaded.records) == 9 and list(loaded.records[:6]) == list(before)
    assert all(set(trial.params) == long for trial in loaded.trials.study.trials)
    fresh = launch(read_study(study_file(search={"trials": 3})), tmp_path / "fresh")
    short = set(load_run(fresh.path).space.parameters())
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (run, fresh.path)]
    assert short != long and manifests[0]["identity"]["digest.space"] == manifests[1]["identity"]["digest.space"]


def test_the_page_of_a_trial_shows_words_and_no_json(study_file: Callable[..., Path], tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 4})), tmp_path / "run")
    loaded = load_run(run.path)
    complete = [trial for trial in loaded.trials.study.trials if trial.values is not None]
    assert len(complete) == 4
    for trial in complete:
        shown = trial.user_attrs
        assert {"formats", "speed-up", "mAP change in points", "weights in MiB", "bits per weight"} <= set(shown)
        assert shown["formats"] == loaded.records[trial.number].allocation.words()
        assert not any(isinstance(value, dict | list) for value in shown.values())
        assert loaded.reference is not None
        change = 100 * (trial.values[0] - loaded.reference.accuracy.map_50_95)
        assert shown["mAP change in points"] == pytest.approx(change, abs=0.006)
