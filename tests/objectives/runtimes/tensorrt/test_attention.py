"""Which layers belong to an attention, on a small one and on real detectors."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.runtimes.tensorrt.attention import attention_layers, never_built
from search_spaces.model_graph import ModelGraph


@pytest.fixture
def graph(tmp_path: Path) -> ModelGraph:
    """stem -> q, k, v -> (q k) v -> projection, beside v -> position, -> out; a residual goes around it all."""
    draw = np.random.default_rng(0)
    size = {"stem": 3, "q": 4, "k": 4, "v": 4, "position": 4, "projection": 4, "out": 4}
    weights = [
        numpy_helper.from_array(draw.normal(size=(4, taken, 1, 1)).astype(np.float32), f"{name}.weight")
        for name, taken in size.items()
    ]

    def conv(name: str, source: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"{name}.weight"], [name], name=name)

    nodes = [
        conv("stem", "images"),
        *(conv(name, "stem") for name in "qkv"),
        helper.make_node("Transpose", ["k"], ["turned"], name="turn", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], name="shares", axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], name="mixed"),
        conv("position", "v"),
        helper.make_node("Add", ["mixed", "position"], ["sum"], name="sum"),
        conv("projection", "sum"),
        helper.make_node("Add", ["stem", "projection"], ["residual"], name="residual"),
        conv("out", "residual"),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 8, 8]) for name, c in (("images", 3), ("out", 4))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "attention", shapes[:1], shapes[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "m.onnx")
    return ModelGraph(tmp_path / "m.onnx")


def test_the_layers_of_an_attention_and_no_others(graph: ModelGraph) -> None:
    assert attention_layers(graph) == {"q", "k", "v", "position", "projection"}


def test_only_the_old_builder_is_spared(graph: ModelGraph) -> None:
    kept = never_built(graph, "8.6.1")
    assert set(kept) == {(layer, "int8") for layer in attention_layers(graph)}
    assert "TensorRT 8.6.1" in kept["q", "int8"]
    assert never_built(graph, "10.13.0") == {}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [("yolov10s", {f"/model.10/attn/{part}/conv/Conv" for part in ("qkv", "pe", "proj")}), ("yolov8n", set())],
)
def test_real_detectors(shared_data: Path, name: str, expected: set[str]) -> None:
    """Of yolov10s these three are what a study on an H100 kept in fp16 by a rule, and built."""
    assert attention_layers(ModelGraph(shared_data / "models" / f"{name}.onnx")) == expected
