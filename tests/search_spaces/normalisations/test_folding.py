from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from search_spaces.model_graph import ModelGraph

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def _save(path: Path, nodes: list, arrays: dict, opset: int = 17) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
         for name, value in arrays.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def test_a_computed_bias_becomes_a_constant_and_what_computed_it_goes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["b16"], ["b"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv"),
    ]
    bias = np.arange(4, dtype=np.float16)
    graph = ModelGraph(_save(tmp_path / "m.onnx", nodes, {"b16": bias, "w": WEIGHT}))
    assert [node.op_type for node in graph.nodes()] == ["Conv"]
    [name] = set(graph.initializers) - {"w"}
    assert next(iter(graph.nodes())).input[2] == name
    np.testing.assert_array_equal(graph.initializers[name], bias.astype(np.float32))


def test_what_others_read_of_it_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["both"], ["w", "rest"], name="split", axis=0),
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Reshape", ["rest", "shape"], ["flat"], name="flat"),
        helper.make_node("ReduceSum", ["flat"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Add", ["c", "sum"], ["y"], name="add"),
    ]
    arrays = {"both": np.concatenate([WEIGHT, WEIGHT]), "shape": np.array([-1])}
    graph = ModelGraph(_save(tmp_path / "m.onnx", nodes, arrays))
    assert [layer.name for layer in graph.quantizable] == ["conv"]
    assert [node.op_type for node in graph.nodes()] == ["Split", "Conv", "Reshape", "ReduceSum", "Add"]


@pytest.mark.parametrize(
    ("nodes", "arrays", "reason"),
    [
        (  # weights in codes are not to be unpacked: the model is quantized already
            [helper.make_node("Cast", ["codes"], ["w"], name="cast", to=TensorProto.FLOAT)],
            {"codes": (WEIGHT * 20).astype(np.int8)},
            "Cast 'cast' computes it from other constants",
        ),
        (
            [helper.make_node("RandomNormal", [], ["w"], name="noise", shape=[4, 3, 3, 3])],
            {},
            "RandomNormal 'noise' computes it from other constants",
        ),
        (
            [helper.make_node("Expand", ["one", "huge"], ["w"], name="expand")],
            {"one": np.ones((1, 1, 1, 1), np.float32), "huge": np.array([2**20, 3, 2**5, 2**5])},
            "Expand 'expand' computes it from other constants",
        ),
        (
            [
                helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[0, 2, 3], keepdims=1),
                helper.make_node("Mul", ["raw", "mean"], ["w"], name="dynamic"),
            ],
            {"raw": WEIGHT},
            "both inputs are activations",
        ),
    ],
)
def test_what_cannot_be_computed_is_told(tmp_path: Path, nodes: list, arrays: dict, reason: str) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4)
    if "huge" in arrays:  # a small input, so that the Conv itself is no larger than its weight
        conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[12] * 4)
    (layer,) = ModelGraph(_save(tmp_path / "m.onnx", [*nodes, conv], arrays)).layers
    assert layer.reason == f"no constant weight: {reason}"
    assert layer.parameters == (
        0 if "activations" in reason and not layer.weight_shape else np.prod(layer.weight_shape)
    )


def test_a_matrix_may_be_turned_on_either_side(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["raw"], ["w"], name="t", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    matrix = WEIGHT.reshape(12, 9)[:, :8]
    graph = ModelGraph(_save(tmp_path / "m.onnx", nodes, {"raw": matrix}))
    assert [layer.weight_shape for layer in graph.quantizable] == [(8, 12)]
    np.testing.assert_array_equal(graph.initializers["w"], matrix.T)


def _grid(path: Path, size: object, **attributes: int) -> Path:
    """A convolution whose result gets the column of each element added, as exporters with dynamic axes write it."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Shape", ["c"], ["dims"], name="dims", **attributes),
        helper.make_node("Gather", ["dims", "last"], ["width"], name="width"),
        helper.make_node("Range", ["zero", "width", "one"], ["columns"], name="columns"),
        helper.make_node("Cast", ["columns"], ["floats"], name="floats", to=TensorProto.FLOAT),
        helper.make_node("Add", ["c", "floats"], ["sum"], name="sum"),
        helper.make_node("Reshape", ["sum", "dims"], ["y"], name="same"),
    ]
    arrays = {"w": WEIGHT, "last": np.array(-1), "zero": np.array(0), "one": np.array(1)}
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_what_shapes_alone_make_is_computed_once(tmp_path: Path, batch: int) -> None:
    path = _grid(tmp_path / "m.onnx", 8)
    graph = ModelGraph(path, batch=batch)
    assert [node.op_type for node in graph.nodes()] == ["Conv", "Add", "Reshape"]
    assert graph.shapes["y"] == (batch, 4, 8, 8)
    assert set(graph.initializers) == {"w", "floats", "dims"}
    image = np.random.default_rng(1).normal(size=(batch, 3, 8, 8)).astype(np.float32)
    [expected] = ReferenceEvaluator(str(path)).run(None, {"x": image})
    [found] = ReferenceEvaluator(graph.model).run(None, {"x": image})
    np.testing.assert_array_equal(found, expected)


def test_a_part_of_a_shape(tmp_path: Path) -> None:
    graph = ModelGraph(_save(
        tmp_path / "m.onnx",
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Shape", ["c"], ["part"], name="part", start=-3, end=9),
            helper.make_node("Expand", ["c", "part"], ["y"], name="expand"),
        ],
        {"w": WEIGHT},
    ))  # fmt: skip
    assert graph.initializers["part"].tolist() == [4, 6, 6]


def test_an_open_shape_stays_as_it_is(tmp_path: Path) -> None:
    graph = ModelGraph(_grid(tmp_path / "m.onnx", "size"))
    assert "Shape" in [node.op_type for node in graph.nodes()]


def test_a_shape_that_is_an_output_stays_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Shape", ["c"], ["y"], name="dims"),
        helper.make_node("Reshape", ["c", "y"], ["other"], name="same"),
    ]
    path = _save(tmp_path / "m.onnx", nodes, {"w": WEIGHT})
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))
    onnx.save(model, path)
    graph = ModelGraph(path)
    assert [node.op_type for node in graph.nodes()] == ["Conv", "Shape", "Reshape"]


def test_amounts_of_padding_that_constants_make(tmp_path: Path) -> None:
    """As PyTorch writes `nn.ZeroPad2d` without simplification: nothing behind it has a shape until they are known."""
    nodes = [
        helper.make_node("ConstantOfShape", ["four"], ["nothing"], name="nothing",
                         value=numpy_helper.from_array(np.array([0], np.int64))),
        helper.make_node("Concat", ["nothing", "sides"], ["pads"], name="pads", axis=0),
        helper.make_node("Reshape", ["pads", "pairs"], ["swapped"], name="swapped"),
        helper.make_node("Reshape", ["swapped", "row"], ["amounts"], name="amounts"),
        helper.make_node("Pad", ["x", "amounts"], ["p"], name="pad"),
        helper.make_node("Conv", ["p", "w"], ["y"], name="conv"),
    ]  # fmt: skip
    arrays = {
        "four": np.array([4]), "sides": np.array([0, 0, 1, 1]), "pairs": np.array([2, 4]), "row": np.array([-1]),
        "w": WEIGHT,
    }  # fmt: skip
    path = _save(tmp_path / "m.onnx", nodes, arrays)
    graph = ModelGraph(path)
    assert [node.op_type for node in graph.nodes()] == ["Pad", "Conv"]
    assert [layer.output_shape for layer in graph.quantizable] == [(1, 4, 7, 7)]
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    [expected] = ReferenceEvaluator(str(path)).run(None, {"x": image})
    [found] = ReferenceEvaluator(graph.model).run(None, {"x": image})
    np.testing.assert_array_equal(found, expected)


def test_sizes_of_known_shapes_stay_as_they_are(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("Concat", ["a", "b"], ["to"], name="to", axis=0),
        helper.make_node("Reshape", ["c", "to"], ["y"], name="flat"),
    ]
    graph = ModelGraph(_save(tmp_path / "m.onnx", nodes, {"w": WEIGHT, "a": np.array([1, 4]), "b": np.array([64])}))
    assert [node.op_type for node in graph.nodes()] == ["Conv", "Concat", "Reshape"]
