"""Files, page, terminal, dashboard and Python give one answer."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna_dashboard import get_note

from tuner.launch import launch
from tuner.results.loaded import LoadedRun, load_run
from tuner.study.study_file import read_study


@pytest.fixture
def loaded(study_file: Callable[..., Path], tmp_path: Path) -> LoadedRun:
    """A finished replay of twelve trials."""
    return load_run(launch(read_study(study_file(search={"trials": 12})), tmp_path / "run").path)


def terminal(loaded: LoadedRun, *more: str) -> str:
    command = [sys.executable, "-m", "tuner", "front", str(loaded.run.path), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_all_say_the_same(loaded: LoadedRun) -> None:
    answer, folder = loaded.recommendation, loaded.run.path
    assert answer is not None
    sentence = answer.sentence(loaded.config.objective_set)
    assert json.loads((folder / "front.json").read_text())["recommendation"] == answer.to_json()
    assert sentence in (folder / "front.md").read_text()
    assert html.escape(sentence) in (folder / "report.html").read_text(encoding="utf-8")
    assert sentence in html.unescape(get_note(loaded.trials.study))
    assert sentence in terminal(loaded)
    told = json.loads(terminal(loaded, "--json"))
    assert told["recommendation"] == answer.to_json()
    assert [entry["trial"] for entry in told["front"] if entry["recommended"]] == [answer.trial]


def test_another_budget_moves_the_answer_and_its_mark(loaded: LoadedRun) -> None:
    told = json.loads(terminal(loaded, "--max-drop", "5", "--json"))
    (marked,) = [entry["trial"] for entry in told["front"] if entry["recommended"]]
    assert told["best"] == told["recommendation"]["trial"] == marked
    assert told["recommendation"]["max_drop"] == pytest.approx(0.05)
    assert told["recommendation"]["drop"] >= json.loads(terminal(loaded, "--json"))["recommendation"]["drop"]
    assert "within 5.0 mAP points" in terminal(loaded, "--max-drop", "5")
