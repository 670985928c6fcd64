"""A study without labels: agreement with the unquantized model is its accuracy, from the study file to the report."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from tiny_detectors import build_detector, write_calibration, write_dataset

from tuner.cli.app import main
from tuner.results.loaded import load_run
from tuner.search.records import Baseline
from tuner.study.run_folder import RunFolder


def tuner(arguments: list[str]) -> int:
    """Runs one command of the terminal; its exit status."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["tuner", *arguments])
        main()
    return int(ended.value.code or 0)


def study_of(folder: Path, **sections: Any) -> Path:
    """A study of a tiny detector on a folder of images; ``labels.json`` lies elsewhere."""
    model = build_detector(folder / "m.onnx")
    images, labels = write_dataset(folder, model, 24)
    labels.rename(folder / "labels.json")
    study = {
        "name": "tiny",
        "model": {"path": "m.onnx"},
        "data": {"images": str(images), "calibration": str(write_calibration(folder)), "search_images": 20},
        "objectives": ["agreement", "weight_mib"],
        "sensitivity": {"images": 1},
        "search": {"trials": 4, "sampler": "nsga2"},
        **sections,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def test_a_study_without_labels_runs_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study, run = study_of(tmp_path), tmp_path / "run"
    assert tuner(["run", str(study), "--run", str(run)]) == 0
    err = capfd.readouterr().err
    assert "(uniform:int8): agreement 9" in err and "mAP" not in err.replace(str(tmp_path), "")
    assert tuner(["resume", str(run), "--trials", "6"]) == 0
    loaded = load_run(run)
    assert loaded.reference is not None and dict(loaded.reference.metrics) == {"agreement": 1.0}
    complete = [record for record in loaded.records if record.scores is not None]
    assert len(complete) >= 6 and any(record.scores.agreement < 1 for record in complete)
    for record in complete:
        assert dict(record.scores.metrics) == {"agreement": record.scores.agreement}
    values = [trial.values[0] for trial in loaded.trials.study.get_trials(deepcopy=False) if trial.values]
    assert values == [record.scores.agreement for record in complete]
    assert loaded.rescores and all(0 < found.full.figure("agreement") <= 1 for found in loaded.rescores.values())
    for found in loaded.rescores.values():
        assert found.difference == pytest.approx(found.full.figure("agreement") - 1)
        assert found.interval[0] <= found.difference <= found.interval[1] <= 0
        assert found.unseen is not None and found.unseen.images == 4
    members = json.loads((run / "front.json").read_text())["front"]
    assert members and all(entry["drop"] == pytest.approx(1 - entry["rescored"]["agreement"]) for entry in members)
    for name in ("front.json", "front.csv", "front.md", "reference.json"):
        assert "map_50" not in (run / name).read_text() and "mAP" not in (run / name).read_text(), name
    with (run / "front.csv").open() as file:
        assert next(csv.reader(file))[1] == "agreement"
    page = (run / "report.html").read_text()
    body = page[page.index("</script>") :]
    assert "agreement against weight size" in body and "mAP" not in body
    assert (run / "schemes" / str(members[0]["trial"]) / "model.onnx").is_file()
    _commands(tmp_path, run, members, capfd)


def _commands(folder: Path, run: Path, members: list[dict], capfd: pytest.CaptureFixture[str]) -> None:
    """What is asked of the run afterwards."""
    capfd.readouterr()
    limit = sorted(entry["drop"] for entry in members)[len(members) // 2]
    assert tuner(["front", str(run), "--max-drop", str(100 * limit), "--json"]) == 0
    kept = json.loads(capfd.readouterr().out)
    assert {entry["trial"] for entry in kept["front"]} == {e["trial"] for e in members if e["drop"] <= limit + 1e-9}
    assert tuner(["front", str(run)]) == 0
    assert "agreement" in capfd.readouterr().out.splitlines()[0]
    assert tuner(["report", str(run)]) == 0
    trial = str(members[0]["trial"])
    assert tuner(["export", str(run), "--trial", trial, "--out", str(folder / "best")]) == 0
    model = str(folder / "best" / "model.onnx")
    assert tuner(["baseline", str(run), model, "--name", "the same"]) == 0
    assert "the same: agreement" in capfd.readouterr().err
    kept_baselines = json.loads(RunFolder(run).baselines.read_text())
    expected = load_run(run).records[int(trial)].scores.agreement
    assert kept_baselines[0]["agreement"] == pytest.approx(expected) and "map_50_95" not in kept_baselines[0]
    assert tuner(["compare", str(run), "--method", "onnx", "--method", "inc"]) == 2
    # The exported scheme is scored afterwards: with labels, and without.
    images = str(folder / "images")
    given = ["eval", model, "--images", images, "--json"]
    capfd.readouterr()
    assert tuner([*given, "--annotations", str(folder / "labels.json")]) == 0
    assert json.loads(capfd.readouterr().out)["map_50_95"] > 0.5
    assert tuner([*given, "--reference", str(folder / "m.onnx")]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found) == {"model", "agreement", "images"}
    assert found["agreement"] == pytest.approx(members[0]["rescored"]["agreement"], abs=1e-6)
    assert tuner(given) == 2
    assert "without labels there is no mAP, but agreement" in capfd.readouterr().err


def test_images_alone_are_enough(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = study_of(tmp_path)
    study = yaml.safe_load(path.read_text())
    study["data"] = {"images": study["data"]["images"]}
    path.write_text(yaml.safe_dump(study))
    assert tuner(["run", str(path), "--run", str(tmp_path / "run")]) == 0
    assert "6 of its 24 images calibrate, and are not scored" in capfd.readouterr().err
    reference = load_run(tmp_path / "run").reference
    assert reference is not None and reference.accuracy.images == 18
    study["calibration"] = {"images": 24}
    path.write_text(yaml.safe_dump(study))
    assert tuner(["run", str(path), "--run", str(tmp_path / "other")]) == 2
    assert "too few to calibrate on 24" in capfd.readouterr().err


def test_labels_that_are_there_are_scored_beside_it(tmp_path: Path) -> None:
    study, run = study_of(tmp_path), tmp_path / "run"
    content = yaml.safe_load(study.read_text())
    content["data"]["annotations"] = str(tmp_path / "labels.json")
    study.write_text(yaml.safe_dump(content))
    assert tuner(["run", str(study), "--run", str(run)]) == 0
    for record in load_run(run).records:
        assert record.scores is None or {"agreement", "map_50_95"} <= set(record.scores.metrics)
    assert "min_agreement" not in json.loads((run / "manifest.json").read_text())["identity"]


def test_its_bound_and_screening_keep_to_it(tmp_path: Path) -> None:
    search = {"trials": 12, "sampler": "nsga2", "screening": {"images": 16}}
    study, run = study_of(tmp_path, search=search, constraints={"min_agreement": 0.9}), tmp_path / "run"
    assert tuner(["run", str(study), "--run", str(run)]) == 0
    loaded = load_run(run)
    assert all(member.record.scores.agreement >= 0.9 for member in loaded.front)
    for record in loaded.records:
        if record.screened is not None:
            assert record.screened.look.upper < 0 and 0 <= record.screened.look.expected <= 1


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"objectives": ["map_50_95", "weight_mib"]}, "data.annotations: missing"),
        ({"objectives": ["agreement", "map_50_95", "weight_mib"]}, "one accuracy"),
        ({"constraints": {"min_map": 0.3}}, "data.metrics: agreement yields no map_50_95; add coco_box"),
        ({"metrics": ["agreement", "coco_box"]}, "coco_box needs labels, and "),
        ({"metrics": []}, "data.metrics: none yields no agreement; add agreement"),
    ],
)
def test_what_needs_labels_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], sections: dict[str, Any], said: str
) -> None:
    path = study_of(tmp_path, **{name: value for name, value in sections.items() if name != "metrics"})
    study = yaml.safe_load(path.read_text())
    study["data"].update({name: value for name, value in sections.items() if name == "metrics"})
    path.write_text(yaml.safe_dump(study))
    assert tuner(["run", str(path), "--run", str(tmp_path / "run")]) == 2
    assert said in capfd.readouterr().err


def test_a_reference_that_finds_nothing_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = study_of(tmp_path)
    model = onnx.load(tmp_path / "m.onnx")
    # As of a model that was not trained: scores that say nothing.
    last = next(node for node in model.graph.node if node.name == "/model.7/Sigmoid")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.02), "low"))
    scaled = onnx.helper.make_node("Mul", ["unscaled", "low"], [last.output[0]])
    last.output[0] = "unscaled"
    model.graph.node.insert(list(model.graph.node).index(last) + 1, scaled)
    onnx.save(model, tmp_path / "m.onnx")
    assert tuner(["run", str(path), "--run", str(tmp_path / "run")]) == 2
    assert "finds nothing to agree with: in 20 images its best score is 0.0" in capfd.readouterr().err


def test_baselines_of_older_runs_are_read() -> None:
    from search_spaces.reading import record_of

    old = {"name": "x", "map_50_95": 0.4, "latency_ms": 1.0, "weight_bytes": 3, "noisy": False}
    assert record_of(Baseline, old, "b") == Baseline("x", 0.4, 1.0, 3) and Baseline("x", 0.4, 1.0, 3).to_json() == old
    new = Baseline("x", 0.9, 1.0, figure="agreement")
    assert record_of(Baseline, new.to_json(), "b") == new and "map_50_95" not in new.to_json()
