"""A study that screens, on real parts: launched, resumed with two workers, and read back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import pytest
import yaml
from tiny_detectors import build_detector, write_calibration, write_dataset

from objectives.evaluation.bench import Bench
from objectives.objective import MAP_50_95
from objectives.scores import Failure, Scores
from search_spaces.errors import InputError
from tuner.cli.app import main
from tuner.launch import launch, resume
from tuner.prepare.evaluators import evaluator_settings
from tuner.prepare.prepared import prepare_study
from tuner.results.loaded import LoadedRun, load_run
from tuner.samplers import make_sampler
from tuner.samplers.history import read_history
from tuner.search.front import feasible, front_of, pareto
from tuner.search.loop import _repeated
from tuner.search.problem import study_problem
from tuner.search.progress_view import describe
from tuner.search.records import TrialRecord
from tuner.search.screening import leaders, summarize
from tuner.search.trials import counted
from tuner.study.inputs import read_inputs
from tuner.study.study_file import read_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screening")
    model = build_detector(path / "m.onnx")
    images, labels = write_dataset(path, model, 24)
    study = {
        "name": "screened",
        "model": {"path": "m.onnx"},
        "data": {
            "images": str(images.relative_to(path)),
            "annotations": str(labels.relative_to(path)),
            "calibration": str(write_calibration(path).relative_to(path)),
        },
        "space": {"formats": ["fp16", "w8a16", "w4a16"]},
        "weights": {"method": "rtn", "granularity": "per_tensor"},
        "objectives": ["map_50_95", "weight_mib"],
        "sensitivity": {"images": 2},
        "search": {
            "trials": 14,
            "sampler": "random",
            "seeds": ["uniform"],
            "screening": {"images": 16, "confidence": 0.95},
        },
    }
    (path / "study.yaml").write_text(yaml.safe_dump(study))
    return path


@pytest.fixture(scope="module")
def half(folder: Path) -> list[TrialRecord]:
    """The records of the first sitting; the second adds four trials by two workers."""
    launch(read_study(folder / "study.yaml"), folder / "run")
    found = list(load_run(folder / "run").records)
    resume(folder / "run", trials=18, workers=2)
    return found


@pytest.fixture(scope="module")
def loaded(folder: Path, half: list[TrialRecord]) -> LoadedRun:
    return load_run(folder / "run")


def _screened(loaded: LoadedRun) -> list[TrialRecord]:
    return [record for record in loaded.records if record.screened is not None]


def test_a_study_that_times_nothing_shows_no_latency(half: list[TrialRecord], folder: Path) -> None:
    text = (folder / "run" / "front.md").read_text()
    assert "| trial | mAP50-95 in the search, points | change, points (95 %) | weights, MiB | bits | formats |" in text
    assert " ms" not in text and "smallest scheme" in text
    scored = next(record for record in half if record.scores)
    assert " ms" not in describe(scored, MAP_50_95) and describe(scored, MAP_50_95).endswith("MiB")
    command = [sys.executable, "-m", "tuner", "front", folder / "run"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    titles = "trial  mAP50-95, points  change, points  MiB  bits  formats"
    assert shown.stdout.split("\n")[0].split() == titles.split()
    assert "the smallest scheme" in shown.stdout


def test_screened_trials_are_told_apart_and_count(loaded: LoadedRun, half: list[TrialRecord]) -> None:
    states = Counter(record.state for record in loaded.records)
    assert set(states) == {"COMPLETE", "PRUNED"} and states["PRUNED"] >= 3
    assert counted(loaded.records) == 18 and list(loaded.records[:14]) == half
    screened = _screened(loaded)
    assert states["PRUNED"] == len(screened) and all(r.origin == "sampler" and r.scores is None for r in screened)
    assert max(Counter(record.allocation.digest for record in loaded.records).values()) == 1
    for record in screened:
        assert loaded.run.evaluation(record.allocation) == record.screened
    entries = [json.loads(line) for line in loaded.run.log_file.read_text().splitlines()]
    evaluated = [entry for entry in entries if entry["event"] == "evaluated"]
    assert len(evaluated) == 18 and sum("screened" in entry for entry in evaluated) == len(screened)


def test_no_screened_scheme_belongs_in_the_front(loaded: LoadedRun, folder: Path) -> None:
    """All are scored in full here, which the study did not."""
    config, reference = loaded.config, loaded.reference
    bench = Bench(replace(evaluator_settings(read_inputs(config), loaded.run), predictions=None))
    full = []
    for record in loaded.records:
        scores = record.scores or bench.evaluate(record.allocation, reference)
        assert isinstance(scores, Scores)
        full.append(replace(record, scores=scores))
        if record.screened is not None:
            leader = next(r for r in loaded.records if r.allocation.digest == record.screened.look.leader)
            assert scores.accuracy.map_50_95 < leader.scores.accuracy.map_50_95
            assert scores.size == record.screened.size and leader.scores.size.weight_bytes <= scores.size.weight_bytes
    bench.close()
    shown = pareto(np.array([config.objective_set.losses(record.scores, reference) for record in full]))
    true_front = {record.number for record, on in zip(full, shown, strict=True) if on}
    assert true_front.isdisjoint(record.number for record in _screened(loaded))
    found = front_of(loaded.records, config.objective_set, reference)
    assert {member.record.number for member in found} == true_front


def test_seeds_are_compared_with_nothing(loaded: LoadedRun) -> None:
    config, records, reference = loaded.config, loaded.records, loaded.reference
    seed = next(record for record in records if record.origin.startswith("uniform"))
    assert leaders(config, records, reference, seed.number) == {}
    proposal = next(record for record in records if record.origin == "sampler")
    front = front_of(records, config.objective_set, reference)
    assert set(leaders(config, records, reference, proposal.number)) == {m.record.allocation.digest for m in front}
    assert len(feasible(records, config.objective_set)) == len([r for r in records if r.scores])


def test_every_sampler_goes_on_from_a_study_that_screened(loaded: LoadedRun) -> None:
    problem = study_problem(prepare_study(read_inputs(loaded.config), loaded.run), loaded.reference)
    held = {record.allocation.digest for record in loaded.records}
    history = read_history(loaded.trials.study, problem)
    assert len(history.schemes) == 18
    record = _screened(loaded)[0]
    row = [problem.decode(scheme) for scheme in history.schemes].index(loaded.space.choices(record.allocation))
    screened = record.screened
    assert history.values[row].tolist() == [screened.look.expected, screened.size.weight_bytes / 2**20]
    assert history.agreement[row] == screened.agreement
    for name in ("model", "lowdim-tpe", "knapsack", "nsga2", "tpe", "random"):
        memory = optuna.create_study(directions=loaded.trials.study.directions)
        memory.add_trials(loaded.trials.study.get_trials())
        memory.sampler = make_sampler(name, problem, 1)
        choices = {g: f for g, f in problem.parameters.items()}
        trial = memory.ask()
        proposed = {g: trial.suggest_categorical(g, list(formats)) for g, formats in choices.items()}
        assert loaded.space.allocation(proposed).digest not in held, name


def test_screened_trials_end_a_row_of_equal_failures(loaded: LoadedRun) -> None:
    memory = optuna.create_study(directions=loaded.trials.study.directions)
    failure = Failure("crash", "as the one before").to_json()
    for state in ["FAIL"] * 4 + ["PRUNED"] * 6 + ["FAIL"] * 4:
        attrs = {"failure": failure} if state == "FAIL" else {"screened": _screened(loaded)[0].screened.to_json()}
        memory.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState[state], user_attrs=attrs))
    assert not _repeated(memory, frozenset())
    fifth = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"failure": failure})
    fifth.datetime_start = fifth.datetime_complete = datetime(2000, 1, 1)  # on a host whose clock is wrong
    memory.add_trial(fifth)
    assert _repeated(memory, frozenset())
    assert not _repeated(memory, frozenset([memory.trials[-1].number]))


def test_status_and_report_tell_what_it_saved_and_risked(
    loaded: LoadedRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    summary, screened = summarize(loaded.records), _screened(loaded)
    assert summary is not None and summary.screened == len(screened) <= summary.compared <= 15
    passed = [r.scores.seconds["evaluate"] for r in loaded.records if r.scores and "look" in r.scores.seconds]
    assert passed and summary.saved == pytest.approx(len(screened) * median(passed)) and summary.spent > 0
    alone = summarize(screened)
    assert alone.saved == pytest.approx(
        sum(r.screened.seconds["look"] for r in screened) / 2
    )  # 8 of 24 images are left
    sentence = str(summary)
    assert f"{len(screened)} of {summary.compared} schemes screened after 16 of 24 images" in sentence
    assert "probability below 5 % per scheme" in sentence
    page = loaded.run.report.read_text()
    assert sentence in page and "Screened schemes" in page and f"{len(screened)} screened" in page
    for arguments in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["tuner", "status", str(loaded.run.path), *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit):
            main()
        told = capfd.readouterr().out
        if arguments:
            assert json.loads(told)["screening"]["screened"] == json.loads(told)["states"]["PRUNED"] == len(screened)
        else:
            assert f"screening: {sentence}" in told


def test_without_screening_nothing_is_told() -> None:
    assert summarize([]) is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.screening.images=24", "search.screening.images 24: trials are scored on 24 images"),
        ("search.screening.images=8", "search.screening.images"),
        ("search.screening.confidence=1.0", "search.screening.confidence"),
        ("runtime.name=replay", "replay has no images"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, override: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        launch(read_study(folder / "study.yaml", [override]), folder / "never")
    assert "\n" not in str(caught.value) and not (folder / "never").exists()
