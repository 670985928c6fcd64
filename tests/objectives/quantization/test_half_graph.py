"""The strongly typed fp16 graph for TensorRT >= 10: its types are checked by ONNX, its numbers by ONNX Runtime."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from dialects import DIALECTS, TRT
from onnx import TensorProto, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.decoding import decoding
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.letterbox import letterbox
from objectives.tasks.detection.data.preprocessing import Preprocessing
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


def _prepare(path: Path, pixels: np.ndarray | None = None) -> tuple[ModelGraph, CalibrationTable, np.ndarray]:
    graph = ModelGraph(path)
    images = pixels if pixels is not None else np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    return graph, calibrate(graph, iter([images]), "max"), images


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable], fmt)


def _types(data: bytes) -> tuple[onnx.ModelProto, dict[str, int]]:
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    found.update({tensor.name: tensor.data_type for tensor in inferred.initializer})
    return model, found


@pytest.mark.parametrize("head", ["end_to_end", "scores", "raw"])
@pytest.mark.parametrize("fmt", ["fp16", "int8", "w8a16", "w4a16", "fp8"])
def test_types_are_consistent_and_only_the_decoding_is_float(tmp_path: Path, head: str, fmt: str) -> None:
    graph, table, _ = _prepare(build_detector(tmp_path / "m.onnx", head))
    artifact = Materializer(graph, table, TRT).materialize(_uniform(graph, fmt))
    for data in {artifact.data, artifact.engine_model}:
        model, types = _types(data)
        assert types[graph.input] == TensorProto.FLOAT
        assert all(types[name] == TensorProto.FLOAT for name in graph.outputs)
        late = decoding(graph)
        for node in model.graph.node:
            if node.op_type in ("Conv", "Sigmoid", "MaxPool", "Concat") and node.name not in late:
                assert types[node.output[0]] == TensorProto.FLOAT16, node.name
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                assert types[node.input[1]] == TensorProto.FLOAT16
        opset = model.opset_import[0].version
        assert opset == (21 if fmt == "w4a16" else 19)
        casts = [node.input[0] + str(types[node.output[0]]) for node in model.graph.node if node.op_type == "Cast"]
        assert len(casts) == len(set(casts))  # one per tensor and type


def test_before_tensorrt_10_weight_only_layers_are_unpacked_for_the_builder_alone(tmp_path: Path) -> None:
    graph, table, image = _prepare(build_detector(tmp_path / "m.onnx", "scores"))
    materializer = Materializer(graph, table, DIALECTS["tensorrt-8"])
    layers = [layer.name for layer in graph.quantizable]
    mixed = materializer.materialize(Allocation.of({layers[0]: "int8", layers[1]: "w8a16", layers[2]: "w4a16"}))
    assert mixed.folded == (layers[1], layers[2]) and mixed.build is not None
    packed, unpacked = onnx.load_model_from_string(mixed.data), onnx.load_model_from_string(mixed.build)
    assert sum(t.data_type == TensorProto.INT4 for t in packed.graph.initializer) > 0
    assert not any(t.data_type == TensorProto.INT4 for t in unpacked.graph.initializer)
    assert unpacked.opset_import[0].version == 17
    assert materializer.materialize(Allocation.of({layers[0]: "int8"})).build is None
    with OnnxRuntimeRunner(mixed.data) as one, OnnxRuntimeRunner(mixed.build) as other:
        for a, b in zip(one.infer(image), other.infer(image), strict=True):
            np.testing.assert_allclose(a, b, atol=0.6, rtol=0.02)


def test_scales_too_small_for_a_half_keep_their_weights(tmp_path: Path) -> None:
    graph, table, _ = _prepare(build_detector(tmp_path / "m.onnx", "scores"))
    layer = graph.quantizable[2]
    weight = np.array(graph.initializers[layer.weight])
    weight[0] *= 1e-4 / np.abs(weight[0]).max()  # its scale would be 8e-7, a subnormal half
    tensor = next(t for t in graph.model.graph.initializer if t.name == layer.weight)
    tensor.CopyFrom(numpy_helper.from_array(weight, layer.weight))
    onnx.save(graph.model, tmp_path / "small.onnx")
    small, table, _ = _prepare(tmp_path / "small.onnx")
    model, _ = _types(Materializer(small, table, TRT).materialize(Allocation.of({layer.name: "int8"})).data)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale = values[f"{layer.weight}_scale_half"].astype(np.float32)
    assert scale.min() >= np.finfo(np.float16).tiny
    kept = values[f"{layer.weight}_quantized"].astype(np.float32) * scale[:, None, None, None]
    step = np.maximum(scale, np.abs(weight).max(axis=(1, 2, 3)) / 127)[:, None, None, None]
    assert (np.abs(kept - weight) <= 0.6 * step + 1e-3 * np.abs(weight)).all()


@pytest.mark.parametrize("name", ["yolov8n.onnx", "yolov10s.onnx"])
def test_real_detectors_in_fp16_and_int8(shared_data: Path, name: str) -> None:
    picture = cv2.imread(str(sorted((shared_data / "coco" / "val").iterdir())[0]))
    pixels = letterbox(picture, Preprocessing((640, 640)))[0][None].astype(np.float32) / 255
    graph, table, image = _prepare(shared_data / "models" / name, pixels)
    materializer = Materializer(graph, table, TRT)
    with OnnxRuntimeRunner(graph.path) as base:
        (expected,) = base.infer(image)
    # ONNX Runtime 1.24 truncates where its fp16 QuantizeLinear should round, so only fp16 can be compared there.
    _types(materializer.materialize(_uniform(graph, "int8")).data)
    artifact = materializer.materialize(_uniform(graph, "fp16"))
    _types(artifact.data)
    with OnnxRuntimeRunner(artifact.data) as half:
        (found,) = half.infer(image)
    assert found.dtype == np.float32 and found.shape == expected.shape
    if name == "yolov10s.onnx":
        sure = expected[0, :, 4] > 0.5
        distance = np.abs(found[0, :, None, :4] - expected[0, sure][None, :, :4]).max(axis=2).min(axis=0)
        assert sure.any() and distance.max() < 2.0
    else:
        sure = expected[0, 4:].max(axis=0) > 0.5
        assert sure.any() and np.abs(found[0, :4, sure] - expected[0, :4, sure]).max() < 2.0
