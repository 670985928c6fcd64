"""Runs that have not ended, that were changed, and that were moved."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest
import yaml
from tiny_study import write_tiny_study

from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from tuner.cli.app import main
from tuner.launch import launch, resume
from tuner.results.export import Exporter
from tuner.results.loaded import load_run
from tuner.results.so_far import failures, not_begun
from tuner.search.records import TrialRecord
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study
from tuner.terminal.signals import Interrupted

StudyFile = Callable[..., Path]
SIZE = ["map_50_95", "weight_mib"]  # nothing is timed


def test_a_run_of_seeds_alone_says_so(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def tuner(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        found = capfd.readouterr()
        assert not caught.value.code, found.err
        return found.out + found.err

    said = tuner("run", study_file(), "--run", run, "--trials", 3)
    assert "only seeds ran (3 trials" in said and f"`tuner resume {run} --trials " in said
    assert "only seeds ran" in tuner("status", run)
    more = int(said.partition("--trials ")[2].partition("`")[0])
    assert not_begun(load_run(run))
    resume(run, trials=more)
    assert any(record.origin == "sampler" for record in load_run(run).records) and not not_begun(load_run(run))
    assert "only seeds" not in tuner("status", run)


@contextmanager
def at(title: str, act: Callable[[], None], seen: list[str], now: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step that acts once one of a title has begun."""
    seen.append(now)
    if now == title:
        act()
    yield lambda done: None


def tiny(folder: Path) -> Path:
    timing = {"warmup_ms": 1, "min_seconds": 0.01, "min_iterations": 3, "attempts": 1}
    return write_tiny_study(folder, "tiny", formats=["fp16", "int8"], timing=timing, search={"transfer": False})


def kill(signum: int) -> None:
    os.kill(os.getpid(), signum)


def test_a_front_is_there_before_the_sensitivities_are_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It can be exported from, and an interrupt then keeps it; a resumed run does not begin again."""
    path, run, seen = tiny(tmp_path), tmp_path / "run", []
    with pytest.raises(Interrupted):
        launch(read_study(path), run, trials=8, steps=partial(at, "sensitivity", partial(kill, SIGINT), seen))
    said = capfd.readouterr().err
    loaded = load_run(run)
    assert [(record.origin, record.state) for record in loaded.records] == [
        ("reference", "COMPLETE"),
        ("uniform:int8", "COMPLETE"),
    ]
    assert "choosing the first schemes" not in seen and not loaded.run.sensitivity.exists()
    first = next(m.record.name for m in loaded.front if not m.record.allocation.unquantized)
    assert f"`tuner export {run} --trial {first} --out DIR`" in said and "6 more trials" in said
    assert "int8 x" in said and (run / "front.md").is_file() and (run / "report.html").is_file()
    Exporter(loaded).export(loaded.record(int(first)), tmp_path / "exported")
    assert (tmp_path / "exported" / "model.onnx").is_file()
    resume(run, trials=5)
    assert [record.origin for record in load_run(run).records][:2] == ["reference", "uniform:int8"]
    assert "first front" not in capfd.readouterr().err


def test_an_interrupt_ends_a_run_while_it_calibrates(tmp_path: Path) -> None:
    path, run, seen = tiny(tmp_path), tmp_path / "run", []
    with pytest.raises(Interrupted, match="nothing is scored yet; `tuner resume"):
        launch(read_study(path), run, steps=partial(at, "calibration", partial(kill, SIGTERM), seen))
    assert seen[-1] == "calibration" and not RunFolder.open(run).calibration.exists()


def test_failures_are_explained_by_kind() -> None:
    def failed(number: int, kind: str, message: str) -> TrialRecord:
        return TrialRecord(number, "FAIL", "sampler", Allocation(()), failure=Failure(kind, message))

    records = [
        failed(0, "interrupted", "x"),
        failed(1, "build", "no kernel for conv1"),
        failed(2, "build", "no kernel for conv2"),
        TrialRecord(3, "FAIL", "sampler", Allocation(())),
    ]
    assert failures(records) == [
        "2 build: no kernel for conv1 (the first one's message)",
        "1 interrupted: the run ended meanwhile; queued again",
        "1 without a reason: another program than tuner ended them",
    ]
    assert failures([]) == []


def test_some_keys_may_change_between_two_sittings(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(search={"trials": 4})
    run = launch(read_study(path), tmp_path / "run").path
    resume(run, overrides=["search.patience=7", "search.trials=6"])
    kept = yaml.safe_load((run / "study.yaml").read_text())["search"]
    assert kept["patience"] == 7 and len(load_run(run).records) == 6
    before = (run / "study.yaml").read_bytes()
    for change in ("search.seed=3", "calibration.method=max", "constraints.max_drop=1", "objectives=[map_50_95]"):
        with pytest.raises(InputError, match=r"is fixed once a run has begun.*these may change: .*search\.hours"):
            resume(run, overrides=[change])
    with pytest.raises(InputError, match=r"did you mean .search\.hours"):
        resume(run, overrides=["search.hour=1"])
    other = tmp_path / "other" / "model.onnx"
    other.parent.mkdir()
    other.write_bytes((tmp_path / "model.onnx").read_bytes())
    resume(run, trials=7, overrides=[f"model.path={other}"])
    assert load_run(run).config.model.path == str(other)
    study_file(layers=9)  # writes another model
    with pytest.raises(InputError, match=r"digest\.model"):
        resume(run, overrides=[f"model.path={tmp_path / 'model.onnx'}"])
    assert load_run(run).config.model.path == str(other) and before != b""


def test_a_run_is_whole_wherever_it_is_moved(tmp_path: Path) -> None:
    """Within the machine its model is found; elsewhere members of the front need none."""
    home = tmp_path / "home"
    home.mkdir()
    path = write_tiny_study(home, "moved", formats=["fp16", "int8"], objectives=SIZE, search={"trials": 4})
    launch(read_study(path), home / "runs" / "moved")
    moved = tmp_path / "deep" / "er" / "moved"
    moved.parent.mkdir(parents=True)
    shutil.move(home / "runs" / "moved", moved)
    loaded = load_run(moved)
    member, others = loaded.front[0].record, [record for record in loaded.records if record.scores]
    exporter = Exporter(loaded)
    for record in others:
        scheme = exporter.export(record, tmp_path / f"out{record.number}")
        assert scheme["sha256"]["model.onnx"] == record.scores.artifact
    resume(moved, trials=5)
    (home / "m.onnx").unlink()
    loaded = load_run(moved)
    member = loaded.front[0].record
    Exporter(loaded).export(member, tmp_path / "front")
    again = json.loads((tmp_path / "front" / "scheme.json").read_text())
    assert again["trial"] == member.number and (tmp_path / "front" / "model.onnx").stat().st_size > 0
    beside = next(r for r in loaded.records if r.scores and r not in [m.record for m in loaded.front])
    with pytest.raises(InputError, match=r"m\.onnx"):
        Exporter(loaded).export(beside, tmp_path / "beside")
    torn = moved / "schemes" / str(member.number) / "model.onnx"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"m\.onnx"):
        Exporter(loaded).export(member, tmp_path / "torn")
