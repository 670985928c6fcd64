"""A second real study of one model on one device begins from what the first one taught."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_study import write_tiny_study

from search_spaces.errors import InputError
from tuner.launch import launch, resume
from tuner.results.loaded import load_run
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study
from tuner.transfer.knowledge import Knowledge

TRIALS = 18


def study(folder: Path, name: str, **search: object) -> Path:
    folder.mkdir()
    timing = {"warmup_ms": 1, "min_seconds": 0.01, "min_iterations": 3, "attempts": 1}
    wanted = {"trials": TRIALS, **search}
    return write_tiny_study(folder, name, formats=["fp16", "int8", "w8a16"], timing=timing, search=wanted)


def run(path: Path) -> RunFolder:
    folder = path.parent / "run"
    launch(read_study(path), folder)
    return RunFolder.open(folder)


def knowledge(run: RunFolder) -> Knowledge:
    return Knowledge.from_json(run.transfer.read_text(), "transfer.json")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "transfer"


def test_it_begins_from_them_and_says_so(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(study(tmp_path / "a", "first"))
    assert knowledge(first) == Knowledge()
    assert "prior:" not in capsys.readouterr().err
    kept = sorted(path.name.split("-")[0] for path in cache.iterdir())
    assert kept == ["costs", "effects", "front"]

    second = run(study(tmp_path / "b", "second"))
    said = capsys.readouterr().err
    assert f"prior: costs on this device from study 'first', {TRIALS} trials" in said
    assert f"prior: effects on this model's accuracy from study 'first', {TRIALS} trials" in said
    known = knowledge(second)
    assert known.costs is not None and known.effects is not None
    assert known.costs.trials == TRIALS
    assert known.front is not None and f"prior: front of this model on this device from study 'first', {TRIALS}" in said
    effects = json.loads(next(cache.glob("effects-*")).read_text())
    assert (effects["study"], effects["trials"]) == ("second", 2 * TRIALS)

    resume(second.path, trials=TRIALS + 1)  # from what it began with, not from what it has taught since
    assert knowledge(second) == known
    assert len(load_run(second.path).records) == TRIALS + 1

    without = run(study(tmp_path / "c", "third", transfer=False))
    assert not without.transfer.exists() and "prior:" not in capsys.readouterr().err
    assert json.loads(next(cache.glob("effects-*")).read_text())["study"] == "second"


def test_it_begins_with_what_an_earlier_one_measured_to_be_best(tmp_path: Path, cache: Path) -> None:
    run(study(tmp_path / "a", "first"))
    path = next(cache.glob("front-*"))
    front = json.loads(path.read_text())
    best = front["schemes"][0]
    best["formats"] = {layers: ("int8", "fp16")[row % 2] for row, layers in enumerate(best["formats"])}
    best["shares"] = {"map_50_95": 1.0, "latency_ms": 0.01, "weight_mib": 0.01}
    path.write_text(json.dumps(front))
    second = run(study(tmp_path / "b", "second", trials=2))
    found = load_run(second.path).records[1]
    assert found.origin == "earlier:0"
    assert dict(found.allocation.formats) == {
        layer: name for layers, name in best["formats"].items() for layer in layers.split(", ")
    }


def test_a_damaged_cache_is_said_and_written_again(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(study(tmp_path / "a", "first"))
    for path in cache.iterdir():
        path.write_text(path.read_text()[:100])
    second = run(study(tmp_path / "b", "second"))
    said = capsys.readouterr().err
    assert said.count("warning:") >= 2 and "delete it: the next study writes it again" in said
    assert knowledge(second) == Knowledge()
    assert json.loads(next(cache.glob("effects-*")).read_text())["study"] == "second"


def test_a_cache_that_cannot_be_written_costs_no_study(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    found = run(study(tmp_path / "a", "first"))
    assert load_run(found.path).front and "later studies learn nothing of this" in capsys.readouterr().err


def test_a_damaged_copy_in_the_run_is_an_error(tmp_path: Path, cache: Path) -> None:
    found = run(study(tmp_path / "a", "first"))
    found.transfer.write_text("{")
    with pytest.raises(InputError, match=r"transfer\.json"):
        resume(found.path, trials=TRIALS + 1)


def test_the_key_is_read(tmp_path: Path) -> None:
    path = study(tmp_path / "a", "first", transfer=False)
    assert yaml.safe_load(path.read_text())["search"]["transfer"] is False
    assert read_study(path).search.transfer is False
