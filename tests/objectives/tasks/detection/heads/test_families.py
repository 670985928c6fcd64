"""Heads of other families, on scenes that their detectors see without a fault: misreading lowers mAP from 1."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from scene_detectors import NAMES, scene_detector, scenes

from objectives.quantization.calibration import calibrate
from objectives.quantization.decoding import decoding
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED, WEAKLY_TYPED
from objectives.scores import Accuracy
from objectives.sensitivity.onnx_sweep import sweep
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import predict
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

#: Layout, fit of its images, its head, and whether the head must be named.
FAMILIES = [
    ("yolox", "top_left", "yolox", False),
    ("yolox_decoded", "top_left", "yolox", False),
    ("yolov5", "centred", "yolov5", False),
    ("yolov5_levels", "centred", "yolov5", True),
    ("yolov5_planes", "centred", "yolov5", True),
    ("yolov5_shares", "centred", "yolov5", True),
    ("yolov5_logits", "centred", "yolov5", True),
    ("yolov7", "centred", "yolov7", True),
    ("yolov6", "centred", "yolov5", False),
    ("rtdetr", "stretched", "rtdetr", False),
    ("rtdetr_selected", "stretched", "rtdetr", False),
    ("scores_normalised", "centred", "scores_normalised", False),
    ("divided", "centred", "scores", False),
    ("nms", "centred", "nms", False),
    ("nms_numbered", "centred", "nms", False),
]


def _scored(folder: Path, model: Path, fit: str, head: str | None = None) -> Accuracy:
    return _scored_on(folder, model, load_dataset(*scenes(folder / fit, fit)), head)


def _scored_on(folder: Path, model: Path, dataset: CocoDataset, head: str | None = None) -> Accuracy:
    detector = recognise(ModelGraph(model), head=head)
    images = PreprocessedImages.build(dataset.images, detector.preprocessing, folder / "cache")
    with OnnxRuntimeRunner(model) as runner:
        return score(dataset, predict(runner, images, detector))


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize(("layout", "fit", "head", "asked"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_a_perfect_detector_scores_one(
    tmp_path: Path, layout: str, fit: str, head: str, asked: bool, named: bool
) -> None:
    model = scene_detector(tmp_path / "m.onnx", layout, names=named)
    if asked:
        with pytest.raises(InputError, match="give --head yolov5 or --head yolov7"):
            recognise(ModelGraph(model))
    found = recognise(ModelGraph(model), head=head if asked else None)
    assert found.name == head and found.classes == (NAMES if named else ())
    assert _scored(tmp_path, model, fit, head if asked else None).metrics["map_50_95"] == pytest.approx(1.0)


@pytest.mark.parametrize("id", [0, 7])
def test_a_group_above_the_categories_is_no_class_of_a_model_without_names(tmp_path: Path, id: int) -> None:
    images, labels = scenes(tmp_path / "top_left", "top_left")
    data = json.loads(labels.read_text())
    for category in data["categories"]:
        category["supercategory"] = "squares"
    data["categories"].append({"id": id, "name": "squares", "supercategory": "none"})
    labels.write_text(json.dumps(data))
    model = scene_detector(tmp_path / "m.onnx", "yolox_decoded", names=False)
    found = _scored_on(tmp_path, model, load_dataset(images, labels))
    assert found.metrics["map_50_95"] == pytest.approx(1.0)


@pytest.mark.parametrize("layout", ["yolox", "yolox_decoded", "yolov5", "yolov5_shares", "rtdetr"])
def test_transposed_outputs_score_alike(tmp_path: Path, layout: str) -> None:
    fit, head, asked = next(family[1:] for family in FAMILIES if family[0] == layout)
    model = scene_detector(tmp_path / "m.onnx", layout, transposed=True)
    assert _scored(tmp_path, model, fit, head if asked else None).metrics["map_50_95"] == pytest.approx(1.0)


@pytest.mark.parametrize(("layout", "fit", "head", "asked"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_quantized_it_is_read_and_scored_as_before(
    tmp_path: Path, layout: str, fit: str, head: str, asked: bool
) -> None:
    graph = ModelGraph(scene_detector(tmp_path / "m.onnx", layout))
    name = head if asked else None
    detector = recognise(graph, head=name)
    dataset = load_dataset(*scenes(tmp_path / fit, fit))
    images = PreprocessedImages.build(dataset.images, detector.preprocessing, tmp_path / "cache")
    table = calibrate(graph, images.singles(), "max")
    layers = [layer.name for layer in graph.quantizable]
    decoded = {name for node in graph.nodes() if node.name in decoding(graph) for name in node.output}
    for dialect in (ONNXRUNTIME, WEAKLY_TYPED, STRONGLY_TYPED):
        artifact = tmp_path / f"{dialect.name}.onnx"
        made = Materializer(graph, table, dialect).materialize(Allocation.uniform(layers, "int8"))
        artifact.write_bytes(made.data)
        assert recognise(ModelGraph(artifact, allow_quantized=True), head=name) == detector
        nodes = onnx.load_from_string(made.data).graph.node
        assert not {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"} & decoded
    with OnnxRuntimeRunner(tmp_path / f"{ONNXRUNTIME.name}.onnx") as runner:
        found = score(dataset, predict(runner, images, detector))
    assert found.metrics["map_50_95"] > 0.85
    pairs = [(layers[0], fmt) for fmt in ("int8", "w4a16")]
    materializer = Materializer(graph, table, ONNXRUNTIME)
    entries = sweep(graph, materializer, detector, images, pairs, tmp_path / "s.jsonl", settings={}).entries
    assert len(entries) == 2 and all(0 <= entry.score < 1 for entry in entries)


@pytest.mark.parametrize("layout", ["yolox", "yolox_decoded", "yolov5", "yolov5_levels", "scores_normalised"])
def test_a_dynamic_batch_hides_nothing(tmp_path: Path, layout: str) -> None:
    fit, head, asked = next(family[1:] for family in FAMILIES if family[0] == layout)
    name = head if asked else None
    model = scene_detector(tmp_path / "m.onnx", layout, names=False, dynamic=True)
    graph = ModelGraph(model)
    fixed = recognise(ModelGraph(scene_detector(tmp_path / "f.onnx", layout, names=False)), head=name)
    assert recognise(graph, head=name) == fixed
    assert _scored(tmp_path, model, fit, name).metrics["map_50_95"] == pytest.approx(1.0)
