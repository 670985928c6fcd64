"""A data yaml stands for images wherever a command asks for them, and for a whole study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Done, Tuner
from tiny_yolo import write_tiny_yolo

from tuner.results.loaded import load_run

IMAGES, TRAIN = 10, 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in a folder that holds ``best.onnx`` and ``data.yaml``."""
    write_tiny_yolo(tmp_path, IMAGES, TRAIN)
    monkeypatch.chdir(tmp_path)


def refused(done: Done, part: str) -> None:
    code, out, errors = done
    assert code == 2 and out == "" and part in errors and len(errors.strip().splitlines()) == 1, errors


def test_a_model_is_scored_drawn_and_materialized(tuner: Tuner, tmp_path: Path) -> None:
    code, out, errors = tuner("eval", "best.onnx", "--data", "data.yaml", "--json")
    assert code == 0, errors
    scored = json.loads(out)
    assert scored["images"] == IMAGES - TRAIN and scored["map_50_95"] > 0.5
    train = json.loads(tuner("eval", "best.onnx", "--data", ".", "--split", "train", "--json")[1])
    assert train["images"] == TRAIN
    code, out, errors = tuner("materialize", "best.onnx", "--uniform", "int8", "--data", "data.yaml", "--out", "i.onnx")
    assert code == 0 and (tmp_path / "i.onnx").is_file(), errors
    assert f"calibration: {TRAIN}\n" in errors
    code, _, errors = tuner("detect", "i.onnx", "--data", "data.yaml", "--limit", 2, "--out", "drawn")
    names = (tmp_path / "val.txt").read_text().split()[:2]
    assert code == 0 and {file.name for file in (tmp_path / "drawn").iterdir()} == {Path(n).name for n in names}
    refused(tuner("eval", "best.onnx"), "give --data DATA.yaml, or --images DIR")
    refused(tuner("eval", "best.onnx", "--data", "data.yaml", "--images", "images"), "give one or the other")
    refused(tuner("materialize", "best.onnx", "--uniform", "int8", "--out", "j.onnx"), "no calibration images: give")
    refused(tuner("detect", "best.onnx", "--out", "more"), "give pictures, or --data DATA.yaml")
    refused(tuner("bench", "best.onnx", "--data", "gone.yaml"), "gone.yaml")


def test_a_model_is_timed_on_its_images(tuner: Tuner) -> None:
    code, out, errors = tuner("bench", "best.onnx", "--data", "data.yaml", "--batch", 1, "--json")
    assert code == 0 and json.loads(out)["p50_ms"] > 0, errors


def test_a_study_needs_no_file(tuner: Tuner, tmp_path: Path) -> None:
    code, _, errors = tuner(
        *("run", "best.onnx", "--data", "data.yaml", "--max-drop", "5", "--trials", 4),
        *("--set", "objectives=[map_50_95, weight_mib]", "--set", "space.granularity=stage"),
    )
    assert code == 0 and "front: runs/best/front.md" in errors, errors
    loaded = load_run(tmp_path / "runs" / "best")
    assert loaded.front and loaded.config.constraints.max_drop == 5
    assert (tmp_path / "runs" / "best" / "study.yaml").is_file()
    refused(tuner("run", "best.onnx", "--data", "data.yaml"), "`tuner resume runs/best` continues it")
    refused(tuner("run", "runs/best"), "is a run; `tuner resume runs/best`")


def test_a_study_file_is_written_to_edit(tuner: Tuner, tmp_path: Path) -> None:
    code, out, errors = tuner("init", "best.onnx", "--data", "data.yaml", "--max-drop", "1.5")
    assert code == 0 and out == "" and errors == "study: study.yaml; start it: tuner run study.yaml\n"
    text = (tmp_path / "study.yaml").read_text()
    assert "max_drop: 1.5  #" in text and "images: data.yaml\n" in text
    refused(tuner("init", "best.onnx", "--data", "data.yaml"), "exists; choose another file")
    refused(tuner("init", "best.onnx", "--out", "other.yaml"), "give --data DATA.yaml")
    assert not (tmp_path / "other.yaml").exists()
    code, _, errors = tuner("sensitivity", "best.onnx", "--data", "data.yaml", "--set", "space.granularity=stage")
    assert code == 0 and (tmp_path / "runs/best-sensitivity/layer-sensitivity-report.md").is_file(), errors
    refused(tuner("sensitivity", "best.onnx"), "give --data DATA.yaml, or --images DIR with --annotations FILE")
    refused(tuner("sensitivity", "study.yaml", "--images", "images"), "is a study file and names its own")
    refused(tuner("compare", "best.onnx"), "give the path of a study file")
