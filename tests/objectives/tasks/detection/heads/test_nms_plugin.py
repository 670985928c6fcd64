"""Models that end in TensorRT's plugins, which nothing here runs: read, calibrated, quantized, refused elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from scene_detectors import plugin_detector, scene_detector, scenes

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED, WEAKLY_TYPED
from objectives.sensitivity.onnx_sweep import DENSE_METRIC, sweep
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

LOW = Thresholds(confidence=0.3)
PLUGINS = ["EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT"]


def _images(folder: Path, detector: Detector) -> PreprocessedImages:
    paths = sorted(scenes(folder, "centred")[0].iterdir())
    records = hash_files([ImageRecord(i, path) for i, path in enumerate(paths)], folder)
    return PreprocessedImages.build(records, detector.preprocessing, folder / "cache")


@pytest.mark.parametrize("domain", ["TRT", ""], ids=["own domain", "ONNX's domain"])
@pytest.mark.parametrize("op", PLUGINS)
def test_is_read_and_named(tmp_path: Path, op: str, domain: str) -> None:
    for named in (True, False):
        graph = ModelGraph(plugin_detector(tmp_path / "m.onnx", op, domain, named))
        detector = recognise(graph)
        assert (detector.name, detector.class_count) == ("nms_plugin", 3)
        assert detector.head.outputs == ("num_dets", "det_boxes", "det_scores", "det_classes")
    assert len(graph.quantizable) == 4
    with pytest.raises(InputError, match=r"3 classes but there are 2 class names"):
        recognise(graph, head="nms_plugin", classes=["a", "b"])


@pytest.mark.parametrize("op", PLUGINS)
def test_dense_outputs_and_what_is_decoded_are_those_of_the_same_detector_without_it(tmp_path: Path, op: str) -> None:
    graph, plain = ModelGraph(plugin_detector(tmp_path / "m.onnx", op)), scene_detector(tmp_path / "p.onnx", "divided")
    detector, other = recognise(graph), recognise(ModelGraph(plain))
    images, levels = _images(tmp_path, detector), _images(tmp_path, other)
    table = calibrate(graph, images.singles(), "max")
    dense = detector.dense(graph)
    assert dense is not None
    artifact = Materializer(graph, table, WEAKLY_TYPED).materialize(Allocation.of({}), dense.tensors)
    cut = _up_to(artifact.data, dense.tensors)
    with OnnxRuntimeRunner(cut) as runner, OnnxRuntimeRunner(plain) as reference:
        for index in range(len(images)):
            outputs = runner.infer(images.batch(index, index + 1))
            (wanted,) = other.decode(reference.infer(levels.batch(index, index + 1)), LOW)
            assert len(wanted) == 5
            probabilities, everywhere = dense.probabilities(outputs), np.arange(64)
            label, anchor = np.nonzero(probabilities > LOW.confidence)
            boxes = dense.boxes(outputs, everywhere)[anchor]
            given = _plugin_outputs(boxes, probabilities[label, anchor], label)
            (found,) = detector.decode(given, LOW)
            assert sorted(map(tuple, found.round(2).tolist())) == sorted(map(tuple, wanted.round(2).tolist()))
            assert all(np.allclose(factor, 1 / 64) for factor in dense.factors() if factor is not None)


@pytest.mark.parametrize(("fmt", "dynamic"), [("int8", False), ("w4a16", False), ("int8", True)])
def test_is_quantized_and_its_sensitivity_measured(tmp_path: Path, fmt: str, dynamic: bool) -> None:
    graph = ModelGraph(plugin_detector(tmp_path / "m.onnx", domain="", dynamic=dynamic, names=not dynamic))
    detector = recognise(graph)
    assert detector.class_count == 3
    images = _images(tmp_path, detector)
    table = calibrate(graph, images.singles(), "max")
    layers = [layer.name for layer in graph.quantizable]
    for dialect in (WEAKLY_TYPED, STRONGLY_TYPED):
        artifact = Materializer(graph, table, dialect).materialize(Allocation.uniform(layers, fmt))
        artifact.check()
        model = onnx.load_from_string(artifact.data)
        (plugin,) = [node for node in model.graph.node if node.op_type == "EfficientNMS_TRT"]
        assert plugin.domain in {entry.domain for entry in model.opset_import}
        assert [output.name for output in model.graph.output] == list(plugin.output)
    pairs = [(layer, fmt) for layer in layers]
    materializer = Materializer(graph, table, WEAKLY_TYPED)
    found = sweep(graph, materializer, detector, images, pairs, tmp_path / "s.jsonl", settings={})
    assert found.metric == DENSE_METRIC and len(found.entries) == len(pairs) and "failed" not in found.settings


@pytest.mark.parametrize("domain", ["TRT", ""])
def test_is_refused_where_the_runtime_lacks_it(tmp_path: Path, domain: str) -> None:
    path = plugin_detector(tmp_path / "m.onnx", domain=domain)
    with pytest.raises(InputError, match=r"EfficientNMS_TRT, which ONNX Runtime does not have; export without NMS"):
        OnnxRuntimeRunner(path).activate()
    graph = ModelGraph(path)
    refusing = []
    for name in RUNTIMES.built_in():
        try:
            open_runtime(parse_settings({"name": name})).check_operators(graph)
        except InputError as error:
            assert "export without NMS" in str(error) and str(path) in str(error)
            refusing.append(name)
    assert refusing == [name for name in RUNTIMES.built_in() if name not in ("tensorrt", "replay")]


def _up_to(artifact: bytes, tensors: tuple[str, ...]) -> bytes:
    """The model that makes those tensors."""
    model = onnx.load_from_string(artifact)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    kept = [node for node in model.graph.node if not node.domain]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return bytes(model.SerializeToString())


def _plugin_outputs(boxes: np.ndarray, scores: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    """What the plugin puts out for boxes that do not overlap: the number, and everything filled up to 20 with zeros."""
    count = len(boxes)
    outputs = [np.full((1, 1), count, np.int32), np.zeros((1, 20, 4), np.float32), np.zeros((1, 20), np.float32)]
    outputs.append(np.zeros((1, 20), np.int32))
    outputs[1][0, :count], outputs[2][0, :count], outputs[3][0, :count] = boxes, scores, label
    outputs[2][0, count:] = 0.9  # what lies beyond the number is no detection
    return outputs
