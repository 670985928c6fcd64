"""A study that moves to another device: accuracy comes along where it holds, latency never; on real parts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Tuner
from tiny_detectors import build_detector
from tiny_study import write_tiny_study

from search_spaces.errors import InputError
from tuner.launch import launch, resume
from tuner.prepare.linked import open_link
from tuner.results.loaded import LoadedRun, load_run
from tuner.study.identity import identity, read_manifest
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

UNTIMED = ["runtime.threads=2", "objectives=[map_50_95, weight_mib]"]  # these tests need not wait for a quiet device


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices")
    timing = {"min_seconds": 0.05, "warmup_ms": 5.0, "max_cov": 5.0}
    search = {"trials": 3, "sampler": "random", "seeds": ["uniform"]}
    data = {"search_images": 4}
    write_tiny_study(path, "moved", formats=["fp16", "int8"], data=data, timing=timing, search=search)
    return path


@pytest.fixture(scope="module")
def first(folder: Path) -> RunFolder:
    """The run on the old device."""
    return launch(read_study(folder / "study.yaml"), folder / "first")


@pytest.fixture(scope="module")
def moved(folder: Path, first: RunFolder) -> RunFolder:
    """The run on the new one: two threads stand in for another machine."""
    config = read_study(folder / "study.yaml", ["runtime.threads=2", "search.seed=7"])
    return launch(config, folder / "moved", linked=first.path)


def scored(loaded: LoadedRun) -> dict[str, object]:
    return {record.allocation.digest: record.scores for record in loaded.records if record.scores is not None}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_accuracy_comes_along_and_latency_is_measured_anew(first: RunFolder, moved: RunFolder) -> None:
    before, after = scored(load_run(first.path)), scored(load_run(moved.path))
    shared = set(before) & set(after)
    assert len(shared) >= 2 and set(after) - shared, "both kinds of scheme are needed here"
    run = read_manifest(first)["id"]
    for digest in shared:
        old, new = before[digest], after[digest]
        assert new.reused == run and old.reused == "" and new.artifact == old.artifact
        assert (new.accuracy, new.agreement, new.broken) == (old.accuracy, old.agreement, old.broken)
        assert "evaluate" in old.seconds and set(new.seconds) == {"materialize", "build", "time"}
        assert new.latency is not None and new.latency != old.latency
        assert (moved.predictions / f"{digest}.npz").is_file()
    for digest in set(after) - shared:
        assert after[digest].reused == "" and "evaluate" in after[digest].seconds
    old, new = load_run(first.path).reference, load_run(moved.path).reference
    assert new.reused == run and "evaluate" not in new.seconds and new.accuracy == old.accuracy
    assert new.latency is not None and new.latency_ms != old.latency_ms


def test_what_is_reused_is_taken_and_not_scored_alike_by_chance(folder: Path, first: RunFolder) -> None:
    """A run whose kept accuracy was marked: the mark arrives, so nothing was computed."""
    marked = RunFolder(folder / "marked")
    shutil.copytree(first.path, marked.path)
    path = next(p for p in marked.evaluations.glob("*.json") if "scores" in json.loads(p.read_text()))
    record = json.loads(path.read_text())
    record["scores"]["accuracy"]["map_75"] = 0.123456
    path.write_text(json.dumps(record))
    other = next(p for p in sorted(marked.evaluations.glob("*.json")) if p != path)
    record = json.loads(other.read_text())
    record["scores"]["artifact"] = "0" * 64  # as if it had been another model
    record["scores"]["accuracy"]["map_75"] = 0.654321
    other.write_text(json.dumps(record))
    run = launch(read_study(folder / "study.yaml", UNTIMED), folder / "after-marked", linked=marked.path)
    found = scored(load_run(run.path))
    assert found[path.stem].accuracy.metrics["map_75"] == 0.123456
    assert found[other.stem].reused == "" and found[other.stem].accuracy.metrics["map_75"] != 0.654321
    assert "scored again: its artifact was 0000" in (run.path / "evaluator.log").read_text()


def test_ranges_and_sensitivity_are_those_of_the_source_and_costs_are_not(first: RunFolder, moved: RunFolder) -> None:
    assert moved.calibration.read_bytes() == first.calibration.read_bytes()
    assert moved.sensitivity.read_bytes() == first.sensitivity.read_bytes()
    assert moved.costs.read_bytes() != first.costs.read_bytes()
    events = [json.loads(line) for line in moved.log_file.read_text().splitlines()]
    linked = next(event for event in events if event["event"] == "linked")
    assert linked["accuracies"] == 4 and linked["scored_again"] == []  # three trials and the reference


def test_the_link_is_shown(first: RunFolder, moved: RunFolder, tuner: Tuner) -> None:
    run = read_manifest(first)["id"]
    assert read_manifest(moved)["linked"] == {"run": run, "path": str(first.path.resolve())}
    code, out, _ = tuner("status", moved.path)
    assert code == 0 and f"linked to {first.path.resolve()} (id {run[:8]})" in out
    assert json.loads(tuner("status", moved.path, "--json")[1])["linked"]["run"] == run
    assert json.loads(tuner("status", first.path, "--json")[1])["linked"] is None
    assert f"id {run[:8]}" in moved.report.read_text()


def test_a_linked_run_goes_on_without_its_source(folder: Path, first: RunFolder) -> None:
    source = folder / "leaving"
    shutil.copytree(first.path, source)
    config = read_study(folder / "study.yaml", [*UNTIMED, "search.trials=1"])
    run = launch(config, folder / "staying", linked=source)
    shutil.rmtree(source)
    resume(run.path, trials=2)
    scores = [record.scores for record in load_run(run.path).records if record.scores is not None]
    assert len(scores) == 2 and all(entry.reused for entry in scores)


def test_a_start_that_died_before_its_manifest_is_linked_on_resume(folder: Path, first: RunFolder) -> None:
    config = read_study(folder / "study.yaml", [*UNTIMED, "search.trials=1"])
    run = launch(config, folder / "died", linked=first.path)
    for path in run.path.iterdir():
        if path.name not in ("study.yaml", "linked.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.evaluations.mkdir(parents=True)
    resume(run.path)
    assert load_run(run.path).reference.reused == read_manifest(first)["id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("calibration.method=mse", "calibration.method is mse, there max"),
        ("data.search_images=3", "data.search_images is 3, there 4"),
        ("space.granularity=module", "digest.space"),
        ("weights.method=rtn", "weights.method is rtn, there auto"),
        ("model.path=other.onnx", "digest.model"),
    ],
)
def test_more_than_another_device_is_refused(
    folder: Path, first: RunFolder, tuner: Tuner, change: str, field: str
) -> None:
    build_detector(folder / "other.onnx", seed=3)
    before, entries = files(first.path), sorted(folder.iterdir())
    code, out, err = tuner(
        "run", folder / "study.yaml", "--set", change, "--new-device", first.path, "--run", folder / "never"
    )
    last = [line for line in err.strip().splitlines() if not line.startswith("note: ")]
    assert code == 2 and out == "" and len(last) == 1 and field in last[0] and "--new-device" in last[0]
    assert sorted(folder.iterdir()) == entries and files(first.path) == before


def test_what_is_no_run_is_refused(folder: Path, tmp_path: Path, tuner: Tuner) -> None:
    for source in (tmp_path / "nothing", tmp_path):
        code, _, err = tuner("run", folder / "study.yaml", "--new-device", source, "--run", tmp_path / "never")
        assert code == 2 and str(source) in err and not (tmp_path / "never").exists()


def test_an_engine_holds_for_its_gpu_and_builder_alone(folder: Path, first: RunFolder, tmp_path: Path) -> None:
    """The decision alone: an engine needs a GPU, the manifests that it is made from do not."""
    config = read_study(folder / "study.yaml")
    now = identity(config, digests=read_inputs(config).digests)
    now |= {"runtime.name": "tensorrt", "versions.tensorrt": "8.6", "device.gpu": "A", "runtime.optimization_level": 3}
    source = RunFolder(tmp_path / "engines")
    shutil.copytree(first.path, source.path)
    source.manifest.write_text(json.dumps({**read_manifest(first), "identity": now}))
    assert open_link(source.path, {**now, "device.driver": "1", "timing.attempts": 9}).differing == ()
    for key, value in (("versions.tensorrt", "10"), ("device.gpu", "B"), ("runtime.optimization_level", 1)):
        link = open_link(source.path, {**now, key: value})
        assert len(link.differing) == 1 and key in link.differing[0]
        target = RunFolder(tmp_path / key)
        target.path.mkdir()
        link.take(target)
        assert target.calibration.is_file() and not target.known.exists()
    with pytest.raises(InputError, match=r"runtime.name is onnxruntime-cuda, there tensorrt"):
        open_link(source.path, {**now, "runtime.name": "onnxruntime-cuda"})
    held = replace(open_link(source.path, now))
    held.take(target)
    assert len(list(target.known.glob("*.json"))) == 4
