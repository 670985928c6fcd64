"""Ultralytics: what it reads back of a model, and, where it is installed, that it finds the same boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from scene_detectors import scene_detector
from shipments import shipment_of
from tiny_detectors import NAMES, build_detector, write_images

from search_spaces.errors import InputError
from search_spaces.reading import literal
from tuner.results.targets.openvino import OpenVinoFolder
from tuner.results.targets.ultralytics import Ultralytics


def _properties(data: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}


def test_the_exporters_metadata_is_kept(tmp_path: Path) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx", "end_to_end"))
    own = {entry.key: entry.value for entry in model.metadata_props}
    own |= {"task": "detect", "stride": "32", "author": "someone", "version": "8.4.190", "end2end": "True"}
    own |= {"args": "{'batch': 1, 'nms': None}", "license": "AGPL-3.0 License", "note": "{not a literal"}
    onnx.helper.set_model_props(model, own)
    onnx.save(model, tmp_path / "m.onnx")
    files = Ultralytics().lay_out(shipment_of(tmp_path, tmp_path / "m.onnx")).files
    found = _properties(files["mine.onnx"])
    assert {key: found[key] for key in own} == own and found["batch"] == "1"


@pytest.mark.parametrize(("layout", "end2end"), [("scores", "False"), ("end_to_end", "True")])
def test_missing_metadata_is_told_by_the_head(tmp_path: Path, layout: str, end2end: str) -> None:
    build_detector(tmp_path / "m.onnx", layout, names=False)
    shipment = shipment_of(tmp_path, tmp_path / "m.onnx")
    laid = Ultralytics().lay_out(shipment)
    found = _properties(laid.files[laid.onnx])
    assert found["task"] == "detect" and found["end2end"] == end2end and literal(found["imgsz"]) == [64, 64]
    assert literal(found["names"]) == {0: "class0", 1: "class1", 2: "class2"} and int(found["stride"]) == 32
    assert literal(found["args"])["batch"] == 1


def test_the_studys_names_go_before_the_models(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"))
    named = replace(shipment, detector=replace(shipment.detector, classes=("x", "y", "z")))
    assert literal(_properties(Ultralytics().lay_out(named).files["mine.onnx"])["names"]) == {0: "x", 1: "y", 2: "z"}


def test_what_ultralytics_does_not_read_is_refused(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, scene_detector(tmp_path / "m.onnx", "yolox"))
    with pytest.raises(InputError, match="--for ultralytics: Ultralytics does not read a model with the head 'yolox'"):
        Ultralytics().lay_out(shipment)


def test_an_engine_has_ultralytics_header_and_a_missing_one_is_told(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"), "tensorrt")
    with pytest.raises(InputError, match=r"the engine that was timed is no longer in the cache.*trtexec"):
        Ultralytics().lay_out(shipment)
    built = replace(shipment, files={**shipment.files, "engine.plan": b"plan"})
    data = Ultralytics().lay_out(built).files["mine.engine"]
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    assert data[4 + length :] == b"plan" and header["task"] == "detect" and header["names"]["0"] == NAMES[0]


def test_of_openvino_the_folder_is_named(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"), "openvino")
    with pytest.raises(InputError, match="use --for openvino"):
        Ultralytics().lay_out(shipment)
    files = OpenVinoFolder().lay_out(shipment).files
    assert {"model.xml", "model.bin", "metadata.yaml"} <= {name.removeprefix("mine_openvino_model/") for name in files}


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "openvino"])
@pytest.mark.parametrize("layout", ["scores", "end_to_end"])
def test_it_predicts_the_same_boxes(tmp_path: Path, layout: str, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    yolo = pytest.importorskip("ultralytics", exc_type=ImportError).YOLO
    if runtime == "openvino":
        pytest.importorskip("openvino")
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", layout), runtime)
    target = OpenVinoFolder() if runtime == "openvino" else Ultralytics()
    for name, data in target.lay_out(shipment).files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    path = tmp_path / ("mine_openvino_model" if runtime == "openvino" else "mine.onnx")
    image = write_images(tmp_path / "seen", 1)[0]
    found = yolo(path, task="detect").predict(str(image), conf=0.25, iou=0.7, verbose=False)[0]
    from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
    from objectives.tasks.detection.data.letterbox import letterbox
    from objectives.tasks.detection.thresholds import Thresholds

    how = shipment.detector.preprocessing
    pixels, place = letterbox(cv2.imread(str(image)), how)
    with OnnxRuntimeRunner(shipment.files["model.onnx"]) as runner:
        rows = shipment.detector.decode(runner.infer(how.feed(pixels[None])), Thresholds(0.25, 0.7))[0]
    boxes = place.to_image(rows[:, :4])
    theirs = found.boxes.xyxy.numpy()
    assert len(theirs) == len(boxes) > 0
    np.testing.assert_allclose(theirs[np.lexsort(theirs.T.round())], boxes[np.lexsort(boxes.T.round())], atol=1.0)
