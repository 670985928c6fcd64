"""A study for a GPU that is elsewhere: accuracy emulated, engines built here, exported, and built for another GPU."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tiny_study import write_tiny_study

from objectives.runtimes.registry import ahead_of_time_builder
from search_spaces.errors import InputError
from tuner.compare.baselines import add_baseline
from tuner.launch import launch
from tuner.results.build import build_engines, schemes_of
from tuner.results.export import Exporter
from tuner.results.loaded import LoadedRun, load_run
from tuner.study.study_file import read_study, runtime_settings

pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("there")
    write_tiny_study(
        path,
        "there",
        formats=["fp16", "int8", "w8a16", "fp8"],
        runtime={"name": ahead_of_time_builder(), "compute_capability": "8.6"},
        objectives=["map_50_95", "engine_mib"],
        search={"trials": 5, "seeds": ["uniform"]},
    )
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def loaded(folder: Path, cache: Path) -> LoadedRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_CACHE", str(cache))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return load_run(launch(read_study(folder / "study.yaml"), folder / "run").path)


def test_engines_are_built_and_their_size_is_an_objective(loaded: LoadedRun) -> None:
    scores = [record.scores for record in loaded.records if record.scores is not None]
    assert len(scores) >= 4 and loaded.front
    assert all(score.engine_bytes > 0 and len(score.engine) == 64 and score.latency is None for score in scores)
    assert len({score.engine for score in scores}) == len({score.artifact for score in scores})
    used = {fmt for record in loaded.records for fmt in record.allocation.formats.values()}
    assert "fp8" not in used  # the GPU has none
    page = (loaded.run.path / "report.html").read_text()
    assert "against engine size" in page and "engines for compute capability 8.6" in page
    assert "no engine ran on this machine" in page
    assert '"emulated"' in (loaded.run.path / "log.jsonl").read_text()


def test_another_tools_model_stands_beside_it(
    loaded: LoadedRun, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored as the trials are, in ONNX Runtime; nothing is timed where no trial is."""
    monkeypatch.setenv("TUNER_CACHE", str(cache))
    found = add_baseline(folder / "run", folder / "m.onnx", "the model itself")
    assert loaded.reference is not None
    assert found.accuracy == pytest.approx(loaded.reference.accuracy.map_50_95, abs=0.02)
    assert found.latency_ms == 0 and not found.noisy
    assert "the model itself" in (folder / "run" / "report.html").read_text()


def test_the_exported_engine_is_the_one_that_was_scored(
    loaded: LoadedRun, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(cache))
    record = next(record for record in loaded.records if record.scores is not None)
    assert record.scores is not None
    scheme = Exporter(loaded).export(record, folder / "exported")
    assert scheme["tensorrt_rtx"].startswith("tensorrt_rtx --onnx=model.onnx")
    plan = (folder / "exported" / "engine.plan").read_bytes()
    assert hashlib.sha256(plan).hexdigest() == record.scores.engine == scheme["sha256"]["engine.plan"]
    for path in cache.rglob("*.plan"):
        path.write_bytes(path.read_bytes() + b"built again")
    kept = loaded.run.schemes / record.name
    aside = kept.rename(folder / "aside") if kept.exists() else None  # what the run exported itself is the one
    Exporter(loaded).export(record, folder / "again")
    if aside is not None:
        aside.rename(kept)
    assert "is not the one that was timed; left out" in capsys.readouterr().err
    assert not (folder / "again" / "engine.plan").exists() and (folder / "again" / "model.onnx").exists()


def test_the_front_is_built_for_other_gpus(loaded: LoadedRun, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CACHE", str(folder / "engines-cache"))
    targets = [runtime_settings(ahead_of_time_builder(), [f"compute_capability={text}"]) for text in ("8.9", "12.0")]
    found = build_engines(schemes_of(loaded, ()), targets, folder / "engines")
    assert len(found) == 2 * len(loaded.front) and not any(built.error for built in found)
    listed = json.loads((folder / "engines" / "build.json").read_text())
    for built, entry in zip(found, listed, strict=True):
        data = (folder / "engines" / built.engine).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["engine_bytes"], entry["sha256"])
        assert "--computeCapabilities=" in built.command


def test_latency_is_refused_where_it_cannot_be_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = read_study(folder / "study.yaml", ["objectives=[map_50_95, latency_ms]"])
    with pytest.raises(InputError, match=r"no latency can be measured here: .* 8\.6.*engine_mib"):
        launch(config, folder / "never")
    assert not (folder / "never").exists()
    config = read_study(folder / "study.yaml", ["runtime.name=onnxruntime-cpu", "runtime.compute_capability=null"])
    with pytest.raises(InputError, match="engine_mib: onnxruntime-cpu builds no engines; choose weight_mib"):
        launch(config, folder / "never")
