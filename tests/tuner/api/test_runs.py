"""What a Python program gets: a run from a few lines, its front, its figure, its exports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import plotly.graph_objects as go
import pytest
from optuna import visualization

import tuner
from tuner.results.loaded import load_run
from tuner.search.records import Rescore

StudyFile = Callable[..., Path]


@pytest.fixture
def run(study_file: StudyFile, tmp_path: Path) -> tuner.Run:
    return tuner.run(study_file(), trials=16, folder=tmp_path / "run", settings={"search.seed": 2}, steps=tuner.silent)


def test_a_run_is_read_as_frozen_objects(run: tuner.Run, tmp_path: Path) -> None:
    assert run.loaded.config.search.seed == 2 and len(run.study.trials) >= 16
    again = tuner.load_run(tmp_path / "run")
    assert again.front == run.front and run.front
    members = load_run(tmp_path / "run").front
    assert [scheme.trial for scheme in run.front] == [member.record.number for member in members]
    costs = [scheme.latency_ms for scheme in run.front]
    assert costs == sorted(costs)
    for scheme in run.front:
        assert scheme.formats == members[run.front.index(scheme)].record.allocation.formats
        assert scheme.speedup == pytest.approx(run.reference.latency_ms / scheme.latency_ms)
    with pytest.raises(AttributeError):
        run.front[0].drop = 0.0  # type: ignore[misc]
    assert run.recommended in run.front


def test_members_that_noise_cannot_tell_apart_are_marked(run: tuner.Run) -> None:
    assert all(scheme.folded_under is None for scheme in run.front), "a replay has no noise"
    rescores = {}
    for member in run.loaded.front:
        scores = member.record.scores
        assert scores is not None
        ratio = scores.latency_ms / run.reference.latency_ms
        change = scores.metrics["map_50_95"] - run.reference.metrics["map_50_95"]
        rescores[member.record.allocation.digest] = Rescore(
            scores.accuracy, None, change, (-0.5, 0.5), ratios=(ratio,), ratio_intervals=((0.01, 2.0),)
        )
    noisy = tuner.Run(run.path, replace(run.loaded, rescores=rescores))
    shown = [scheme for scheme in noisy.front if scheme.folded_under is None]
    assert len(shown) == 1 < len(noisy.front)
    assert {scheme.folded_under for scheme in noisy.front} == {None, shown[0].trial}
    assert shown[0].nearest and noisy.recommended is None, "half a mAP may be lost"


def test_a_scheme_is_exported(run: tuner.Run, tmp_path: Path) -> None:
    scheme = run.recommended
    assert scheme is not None
    told = run.export(scheme.trial, tmp_path / "best")
    assert told == json.loads((tmp_path / "best" / "scheme.json").read_text()) and told["trial"] == scheme.trial
    with pytest.raises(tuner.InputError, match="not empty"):
        run.export(scheme.trial, tmp_path / "best")
    with pytest.raises(tuner.InputError, match="--trial 999"):
        run.export(999, tmp_path / "other")


def test_the_figure_is_that_of_the_report(run: tuner.Run) -> None:
    figure = run.plot()
    assert isinstance(figure, go.Figure)
    drawn = {trace.name: len(trace.x) for trace in figure.data if trace.name and trace.x is not None}
    assert {"unquantized"} <= drawn.keys()
    page = figure.to_html(include_plotlyjs=False)
    assert "unquantized" in page


def test_the_front_is_a_data_frame_too(run: tuner.Run) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = run.front_frame()
    assert list(frame.index) == [scheme.trial for scheme in run.front]
    assert list(frame["drop"]) == [scheme.drop for scheme in run.front]


def test_optunas_own_plots_have_readable_axes(run: tuner.Run) -> None:
    front = visualization.plot_pareto_front(run.study)
    assert [front.layout.xaxis.title.text, front.layout.yaxis.title.text] == ["map_50_95", "latency_ms"]
    assert sum(len(trace.x) for trace in front.data) == len(
        run.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    )
    importances = visualization.plot_param_importances(
        run.study, target=lambda trial: -trial.values[0], target_name="loss of mAP50-95"
    )
    names = set(importances.data[0].y)
    assert names <= set(run.study.trials[0].params) and len(names) > 5


def test_a_run_goes_on(run: tuner.Run, tmp_path: Path) -> None:
    more = tuner.resume(tmp_path / "run", trials=18, settings={"search.hours": 2.0}, steps=tuner.silent)
    assert more.loaded.config.search.hours == 2.0 and len(more.study.trials) >= 18
    for wrong in ({"trials": 0}, {"workers": 0}):
        with pytest.raises(tuner.InputError, match="0: must be at least 1"):
            tuner.resume(tmp_path / "run", steps=tuner.silent, **wrong)
    with pytest.raises(tuner.InputError, match="is fixed once a run has begun"):
        tuner.resume(tmp_path / "run", settings={"search.seed": 1}, steps=tuner.silent)


def test_what_is_wrong_is_refused_before_anything_is_made(study_file: StudyFile, tmp_path: Path) -> None:
    study = study_file()
    for wrong in ({"trials": 0}, {"workers": 0}, {"settings": {"search.trials": 0}}):
        with pytest.raises(tuner.InputError, match="0"):
            tuner.run(study, folder=tmp_path / "run", steps=tuner.silent, **wrong)
    with pytest.raises(tuner.InputError, match="\U0001f600"):  # no half of that character
        tuner.run(study, settings={"model.path": Path("no/\U0001f600.onnx")}, steps=tuner.silent)
    assert not (tmp_path / "run").exists()


def test_importing_tuner_loads_nothing_heavy() -> None:
    code = """
import sys
import tuner
heavy = {"optuna", "numpy", "onnx", "onnxruntime", "plotly", "cv2", "pydantic", "torch", "rich", "typer"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
assert set(tuner.__all__) <= set(dir(tuner))
for name in tuner.__all__:
    assert getattr(tuner, name) is not None, name
assert tuner.samplers.ModelGuidedSampler.from_table
assert not {"torch", "mlflow", "pandas", "openvino"} & sys.modules.keys()
try:
    tuner.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "module 'tuner' has no attribute 'nothing'\n", done.stderr
