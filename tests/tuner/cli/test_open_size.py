"""Models of any image size at the command line: the size that is given, else the one that they state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from open_size import open_detector
from tiny_detectors import build_detector, write_calibration, write_dataset

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from tuner.cli.commands.model import bench, evaluate, layers
from tuner.cli.commands.scheme import materialize
from tuner.launch import launch
from tuner.results.export import Exporter
from tuner.results.loaded import load_run
from tuner.study.study_file import read_study

Given = tuple[int, int] | None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path, build_detector(tmp_path / "fixed.onnx"), 6)
    write_calibration(tmp_path)
    return tmp_path


@pytest.mark.parametrize("stated", [None, (64, 64), (96, 96)])
def test_it_scores_and_lists_as_at_that_size(folder: Path, stated: Given, capsys: pytest.CaptureFixture[str]) -> None:
    path = open_detector(folder / "open.onnx", stated=stated)
    found = {}
    for model, size in ((folder / "fixed.onnx", None), (path, "64")):
        labels = {"images": folder / "images", "annotations": folder / "labels.json"}
        evaluate(model, **labels, image_size=size, as_json=True)
        scores = json.loads(capsys.readouterr().out)
        layers(model, image_size=size, as_json=True)
        listed = json.loads(capsys.readouterr().out)
        assert scores.pop("model") == listed.pop("model") == str(model)
        found[model] = scores, listed["layers"]
    assert found[path] == found[folder / "fixed.onnx"]
    assert found[path][0]["map_50_95"] > 0.8


def test_a_quantized_file_of_it_has_that_size(folder: Path) -> None:
    path = open_detector(folder / "open.onnx")
    out = folder / "int8.onnx"
    images = folder / "calibration.txt"
    with pytest.raises(InputError, match="give --image-size"):
        materialize(path, uniform="int8", calibration=images, out=out)
    materialize(path, uniform="int8", calibration=images, out=out, image_size="64x96")
    made = ModelGraph(out, allow_quantized=True)
    assert (made.input_shape, made.sized) == ((1, 3, 64, 96), None)
    bench(out, reference=path, image_size="64x96")


def test_without_a_size_it_is_not_timed(folder: Path) -> None:
    with pytest.raises(InputError, match=r"leaves its image size open; give --image-size"):
        bench(open_detector(folder / "open.onnx"))


@pytest.mark.parametrize("given", [None, 64])
def test_a_study_of_it(folder: Path, given: int | None) -> None:
    open_detector(folder / "open.onnx", stated=None if given else (64, 64))
    study = {
        "name": "open",
        "model": {"path": "open.onnx", **({"image_size": given} if given else {})},
        "data": {"images": "images", "annotations": "labels.json", "calibration": "calibration.txt"},
        "space": {"granularity": "stage", "formats": ["w8a16", "int8"]},
        "calibration": {"method": "max"},
        "sensitivity": {"images": 2},
        "objectives": ["map_50_95", "weight_mib"],
        "search": {"trials": 3, "seeds": ["uniform"]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    loaded = load_run(launch(read_study(folder / "study.yaml"), folder / "run").path)
    assert loaded.reference is not None and loaded.reference.accuracy.map_50_95 > 0.8
    assert all(record.scores is not None for record in loaded.records)
    Exporter(loaded).export(loaded.records[0], folder / "exported")
    made = ModelGraph(folder / "exported" / "model.onnx", allow_quantized=True)
    assert (made.input_shape, made.sized) == ((1, 3, 64, 64), None)
