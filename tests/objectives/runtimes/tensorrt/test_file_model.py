"""A model file that comes without calibration images, for an engine of TensorRT >= 10; needs no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_detectors import build_detector

from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.runtimes.runtime import Runtime
from search_spaces.model_graph import ModelGraph


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = open_runtime(parse_settings({"name": "tensorrt"}))
    monkeypatch.setattr(type(found), "version", "10.13.2")
    return found


def _with_large_values(path: Path) -> Path:
    """A detector that passes 3e5 on its way."""
    model = onnx.load(build_detector(path))
    place, node = next((i, n) for i, n in enumerate(model.graph.node) if n.name == "/model.6/MaxPool")
    source = node.input[0]
    for name, factor in (("up", 3e5), ("down", 1 / 3e5)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(factor).reshape(1), name))
        made = helper.make_node("Mul", [source, name], [f"{name}_out"], f"/{name}")
        model.graph.node.insert(place, made)
        source, place = f"{name}_out", place + 1
    model.graph.node[place].input[0] = source
    onnx.save(model, path)
    return path


def test_noise_shows_what_overflows(tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    graph = ModelGraph(_with_large_values(tmp_path / "m.onnx"), allow_quantized=True)
    made = runtime.file_model(graph)
    assert isinstance(made, bytes)
    said = capsys.readouterr().err
    assert "/up" in said and "noise" in said
    image = np.random.default_rng(7).random(graph.input_shape, dtype=np.float32)
    (found,) = ReferenceEvaluator(onnx.load_model_from_string(made)).run(None, {"images": image})
    (expected,) = ReferenceEvaluator(graph.model).run(None, {"images": image})
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.3)


def test_a_half_precision_file_is_built_as_it_computes(
    tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx"))
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    made = runtime.file_model(ModelGraph(tmp_path / "half.onnx", allow_quantized=True))
    assert isinstance(made, bytes) and capsys.readouterr().err == ""
    typed = onnx.load_model_from_string(made)
    onnx.checker.check_model(typed, full_check=True)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in typed.graph.initializer)
    borders = (*typed.graph.input, *typed.graph.output)
    assert all(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in borders)
