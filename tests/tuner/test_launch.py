from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from objectives.scores import Scores
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from tuner.launch import launch, resume
from tuner.prepare.prepared import prepare_study
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.reporting import write_report_of
from tuner.search.loop import RepeatedFailureError
from tuner.search.problem import study_problem
from tuner.search.stopping import Patience
from tuner.search.trials import counted
from tuner.study.identity import check_identity, read_manifest
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

StudyFile = Callable[..., Path]
TUNER = [sys.executable, "-m", "tuner"]


def events(run: Path, event: str) -> list[dict]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [entry for line in lines if (entry := json.loads(line))["event"] == event]


def assert_sound(loaded: LoadedRun) -> None:
    """Nothing lost, nothing twice, nothing left running."""
    states = Counter(record.state for record in loaded.records)
    assert states["RUNNING"] == 0
    told = Counter(r.allocation.digest for r in loaded.records if r.scores is not None)
    evaluated = Counter(entry["digest"] for entry in events(loaded.run.path, "evaluated"))
    durable = {path.stem for path in loaded.run.evaluations.glob("*.json")}
    assert set(told) == durable and max(told.values()) == 1
    assert set(evaluated) <= durable and max(evaluated.values()) == 1
    for record in loaded.records:
        if record.scores is not None:
            kept = loaded.run.evaluation(record.allocation)
            assert isinstance(kept, Scores) and kept.latency_ms == record.scores.latency_ms


def test_a_study_ends_with_all_its_results(study_file: StudyFile, tmp_path: Path) -> None:
    config = read_study(study_file(search={"trials": 26, "sampler": "nsga2"}))
    run = launch(config, tmp_path / "run")
    loaded = load_run(run.path)
    assert_sound(loaded)
    assert counted(loaded.records) == 26
    origins = [record.origin for record in loaded.records]
    assert origins[:4] == ["reference", "uniform:int8", "uniform:w8a16", "uniform:w4a16"]
    assert any(origin.startswith("knapsack") for origin in origins) and origins[-1] == "sampler"
    for name in ("front.json", "front.csv", "front.md", "report.html", "layer-sensitivity-report.md"):
        assert (run.path / name).stat().st_size > 0
    members = {str(member.record.number) for member in loaded.front}
    assert {folder.name for folder in run.schemes.iterdir()} == members
    assert sum(member.recommended for member in loaded.front) == 1
    scheme = json.loads(next(run.schemes.glob("*/scheme.json")).read_text())
    record = loaded.records[scheme["trial"]]
    assert Allocation.of(scheme["allocation"]) == record.allocation
    assert scheme["sha256"]["model.onnx"] == record.scores.artifact


def test_more_trials_continue_where_the_study_ended(study_file: StudyFile, tmp_path: Path) -> None:
    launch(read_study(study_file(search={"trials": 6})), tmp_path / "run")
    before = load_run(tmp_path / "run").records
    assert Counter(r.state for r in before)["COMPLETE"] == 6
    resume(tmp_path / "run", trials=9)
    loaded = load_run(tmp_path / "run")
    assert_sound(loaded)
    assert counted(loaded.records) == 9 and list(loaded.records[:6]) == list(before[:6])
    assert len(events(tmp_path / "run", "reference")) == 1
    assert loaded.manifest["trials"] == 9


def test_patience_ends_a_study_that_gains_nothing_and_trials_extend_it(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(layers=4, search={"trials": 200, "patience": 6, "sampler": "random"}, replay={"noise": 0.0})
    launch(read_study(path), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    done = counted(loaded.records)
    (stopped,) = events(tmp_path / "run", "stopped")
    assert done < 100 and "no gain beyond noise in 6 trials" in stopped["reason"]
    assert all(record.origin == "sampler" for record in loaded.records[-6:])
    resume(tmp_path / "run")
    assert counted(load_run(tmp_path / "run").records) == done, "as it ended before"
    resume(tmp_path / "run", trials=done + 3)
    assert counted(load_run(tmp_path / "run").records) == done + 3


def test_patience_takes_luck_for_no_gain(study_file: StudyFile, tmp_path: Path) -> None:
    launch(read_study(study_file(search={"trials": 24, "sampler": "random"})), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    config, reference = loaded.config, loaded.reference
    study = prepare_study(read_inputs(config), loaded.run)
    patience = Patience(study_problem(study, reference), reference, 4)
    best = max((r for r in loaded.records if r.scores), key=lambda record: record.scores.accuracy.map_50_95)

    def over(gain: float) -> str:
        """With the last trial replaced by a twin of the best whose mAP is so much higher."""
        accuracy = replace(
            best.scores.accuracy, metrics={**best.scores.metrics, "map_50_95": best.scores.accuracy.map_50_95 + gain}
        )
        last = replace(loaded.records[-1], scores=replace(best.scores, accuracy=accuracy))
        loaded.trials._ended[last.number] = last
        return patience.over(loaded.trials)

    assert "no gain beyond noise" in over(0.0) and "noise" in over(0.0002)
    assert over(0.05) == ""


def test_an_exhausted_space_ends_the_study(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(layers=3, search={"trials": 50}, space={"formats": ["fp16", "int8"]})
    launch(read_study(path), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert counted(loaded.records) == 8
    assert_sound(loaded)


def test_failures_are_kept_and_five_alike_end_the_study(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(replay={"failures": {"*": "crash"}})
    with pytest.raises(RepeatedFailureError, match="5 trials in a row"):
        launch(read_study(path), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    failed = [record for record in loaded.records if record.failure]
    assert len(failed) == 5 and {record.failure.kind for record in failed} == {"crash"}
    assert counted(loaded.records) == 6


def test_noise_ends_no_study_even_by_the_users_bound(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file(replay={"failures": {"*": "unstable"}}, search={"trials": 9})
    launch(read_study(path), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    assert counted(loaded.records) == 9
    assert sum(record.failure is not None for record in loaded.records) == 8
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: trial 5 has no latency: replayed unstable" in said


def test_unstable_trials_do_not_hide_what_fails_alike(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file()
    layers = read_inputs(read_study(path)).graph.quantizable
    noisy = Allocation.uniform([layer.name for layer in layers], "w8a16").digest
    (tmp_path / "replay.json").write_text(json.dumps({"failures": {noisy: "unstable", "*": "crash"}}))
    with pytest.raises(RepeatedFailureError, match="5 trials in a row"):
        launch(read_study(path), tmp_path / "run")
    failed = Counter(record.failure.kind for record in load_run(tmp_path / "run").records if record.failure)
    assert failed == {"crash": 5, "unstable": 1}


def test_a_reference_that_detects_nothing_is_an_input_error(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(replay={"reference_map": 0.01})
    with pytest.raises(InputError, match="model and labels do not match"):
        launch(read_study(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_identity_is_refused_field_by_field(study_file: StudyFile, tmp_path: Path) -> None:
    launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    before = (tmp_path / "run" / "study.db").read_bytes()
    text = (tmp_path / "run" / "study.yaml").read_text()
    (tmp_path / "run" / "study.yaml").write_text(text.replace("seed: 0", "seed: 5"))
    study_file(layers=13)  # another model in the same place
    with pytest.raises(InputError) as caught:
        resume(tmp_path / "run", trials=5)
    message = str(caught.value)
    assert "search.seed is 5, was 0" in message and "digest.model" in message and "digest.space" in message
    assert "\n" not in message and (tmp_path / "run" / "study.db").read_bytes() == before


def test_a_damaged_manifest_is_refused_before_any_trial(study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    manifest = read_manifest(run)
    manifest["space"]["formats"].pop()
    run.manifest.write_text(json.dumps(manifest))
    before = run.database.read_bytes()
    with pytest.raises(InputError, match="space: its groups, formats and layers do not fit together"):
        resume(tmp_path / "run", trials=5)
    assert run.database.read_bytes() == before


def test_what_the_dashboard_keeps_and_cannot_be_is_refused(study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    with closing(sqlite3.connect(run.database)) as connection:
        connection.execute("UPDATE study_system_attributes SET value_json = '\"x\"' WHERE key = 'dashboard:note_ver'")
        connection.execute(
            "UPDATE study_system_attributes SET value_json = '\"x\"' WHERE key LIKE 'dashboard:note_str:%'"
        )
        assert connection.total_changes >= 2
        connection.commit()
    with pytest.raises(InputError, match="holds what no study of ours holds"):
        write_report_of(load_run(run.path))


def test_trials_that_are_not_numbered_as_optuna_does_it_are_refused(study_file: StudyFile, tmp_path: Path) -> None:
    """A trial is looked up by its number: with two of one number a result would go to the wrong one."""
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    with closing(sqlite3.connect(run.database)) as connection:
        connection.execute("UPDATE trials SET number = 0, state = 'RUNNING' WHERE number = 2")
        connection.commit()
    with pytest.raises(InputError, match=r"a trial is numbered 3 in place of 2; restore its storage"):
        resume(tmp_path / "run", trials=5)
    with pytest.raises(InputError, match="restore its storage"):
        load_run(tmp_path / "run")


def test_identity_ignores_what_is_harmless(study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    recorded = read_manifest(run)["identity"]
    assert not {"search.trials", "search.hours"} & set(recorded)
    check_identity(run, recorded, dict(recorded))
    with pytest.raises(InputError, match=r"versions.onnx is 0, was "):
        check_identity(run, recorded, {**recorded, "versions.onnx": "0"})


def test_an_existing_run_is_refused_and_names_resume(study_file: StudyFile, tmp_path: Path) -> None:
    config = read_study(study_file(search={"trials": 3}))
    launch(config, tmp_path / "run")
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(InputError, match="tuner resume"):
        launch(config, tmp_path / "run")
    assert before == sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))


def test_two_sittings_at_once_are_refused(study_file: StudyFile, tmp_path: Path) -> None:
    launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    with RunFolder.open(tmp_path / "run").lock(), pytest.raises(InputError, match="another `tuner`"):
        resume(tmp_path / "run", trials=5)


def test_a_launch_leaves_a_folder_alone_that_another_one_has_taken(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `tuner resume` that finds the new folder before its maker has locked it."""
    create = RunFolder.create
    taken: list[filelock.FileLock] = []

    def raced(path: Path, text: str, linked: Path | None = None) -> RunFolder:
        run = create(path, text, linked)
        taken.append(filelock.FileLock(path / ".lock"))
        taken[0].acquire()
        return run

    monkeypatch.setattr(RunFolder, "create", raced)
    with pytest.raises(InputError, match="another `tuner` works on it"):
        launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    assert (tmp_path / "run" / "study.yaml").is_file()
    taken[0].release()
    assert resume(tmp_path / "run").reference.is_file()


def test_a_removed_run_loses_its_name_first(study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    with run.lock():
        run.remove()
    assert not list(tmp_path.glob("*run*"))


@pytest.mark.parametrize("name", ["log.jsonl", "cache/seeds.json"])
def test_a_link_in_a_run_folder_is_refused_and_never_written_through(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "run", "name: a\n")
    (tmp_path / "mine.txt").write_text("mine")
    (run.path / name).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match=f"holds a link, '{name}'"):
        RunFolder.open(run.path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["log.jsonl", "cache/seeds.json"])
def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "run", "name: a\n")
    (run.path / name).mkdir()
    with pytest.raises(InputError, match=f"'{name}' is a folder where a file belongs"):
        RunFolder.open(run.path)


def test_a_database_that_lost_its_study_but_not_the_trials_is_refused(study_file: StudyFile, tmp_path: Path) -> None:
    launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "study.db") as connection:
        connection.execute("DELETE FROM studies")
    connection.close()
    with pytest.raises(InputError, match="holds what no study of ours holds"):
        resume(tmp_path / "run", trials=5)


def test_a_shared_storage_keeps_runs_apart(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(search={"trials": 3}, storage=f"sqlite:///{tmp_path}/shared.db")
    launch(read_study(path), tmp_path / "one")
    with pytest.raises(InputError, match="of another run"):
        launch(read_study(path), tmp_path / "two")
    assert not (tmp_path / "two").exists()
    launch(read_study(path, ["name=other"]), tmp_path / "two")
    assert counted(load_run(tmp_path / "two").records) == 3


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_cleanly(study_file: StudyFile, tmp_path: Path, signum: int, code: int) -> None:
    path = study_file(replay={"delay": 1.0})
    run = tmp_path / "run"
    process = subprocess.Popen([*TUNER, "run", path, "--run", run], stderr=subprocess.PIPE, text=True)
    log = run / "log.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count('"evaluating"') >= 3)  # it is in the next evaluation
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in errors
    loaded = load_run(run)
    assert_sound(loaded)
    cut = [record for record in loaded.records if record.failure]
    assert [record.failure.kind for record in cut] == ["interrupted"]
    waiting = [r for r in loaded.records if r.state == "WAITING" and r.allocation == cut[0].allocation]
    assert [record.origin for record in waiting] == [cut[0].origin]
    done = counted(loaded.records)
    assert f"tuner: interrupted; front and report of the {done} trials that are done" in errors
    assert f"`tuner resume {run}` goes on" in errors
    listed = json.loads((run / "front.json").read_text())["front"]
    assert [entry["trial"] for entry in listed] == [member.record.number for member in loaded.front] != []
    assert (run / "report.html").stat().st_size > 0


@pytest.mark.timeout(240)
def test_sigkill_at_random_moments_loses_nothing(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(replay={"delay": 0.05}, search={"trials": 40, "sampler": "nsga2"})
    run, draw = tmp_path / "run", random.Random(os.getpid())
    kills = 0
    command = [*TUNER, "run", str(path), "--run", str(run)]
    while kills < 4:
        done = count(run)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        ended = process.poll
        wait_for(lambda done=done, ended=ended: count(run) > done or ended() is not None)
        time.sleep(draw.uniform(0.0, 0.5))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        command = [*TUNER, "resume", str(run)]
    assert kills >= 2, "the study ended before it could be killed"
    durable = {path.stem for path in (run / "cache" / "evaluations").glob("*.json")}
    assert subprocess.run([*TUNER, "resume", str(run)], capture_output=True, check=False).returncode == 0
    loaded = load_run(run)
    assert_sound(loaded)
    assert counted(loaded.records) == 40
    assert durable <= {record.allocation.digest for record in loaded.records if record.scores}
    assert len(events(run, "reference")) == 1


def count(run: Path) -> int:
    return len(list((run / "cache" / "evaluations").glob("*.json")))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_impossible_scores_fail_before_they_are_told(study_file: StudyFile, tmp_path: Path) -> None:
    from objectives.runtimes.replay.evaluator import ReplayEvaluator, ReplaySettings
    from search_spaces.model_graph import ModelGraph

    path = study_file(search={"trials": 6})
    layers = ModelGraph(tmp_path / "model.onnx").quantizable
    digests = [Allocation.uniform([layer.name for layer in layers], name).digest for name in ("int8", "w8a16")]
    scores = ReplayEvaluator(layers, ReplaySettings()).reference().to_json()
    bad = {digests[0]: {**scores, "agreement": float("nan")}, digests[1]: {**scores, "latency_ms": -3.0}}
    bad[digests[1]]["latency"] = {**scores["latency"], "ratio": -0.1}
    (tmp_path / "replay.json").write_text(json.dumps({"scores": bad}))
    launch(read_study(path), tmp_path / "run")
    records = {record.allocation.digest: record for record in load_run(tmp_path / "run").records}
    assert [records[digest].failure.kind for digest in digests] == ["nan", "impossible"]


def test_nothing_holds_the_database_after_a_run(study_file: StudyFile, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")
    load_run(run.path)
    held = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert not [name for name in held if "study.db" in name]
