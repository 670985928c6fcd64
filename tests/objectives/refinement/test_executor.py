"""What PyTorch makes of a graph is what ONNX Runtime makes of it, or the model is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_detectors import build_detector

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement import operators  # noqa: E402
from objectives.refinement.executor import Executor, fused  # noqa: E402
from search_spaces.errors import InputError  # noqa: E402
from search_spaces.model_graph import ModelGraph  # noqa: E402

ENDS = (("x", [1, 3, 8, 8]), ("y", [1, None, None, None]))
IMAGE = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)


def checked(folder: Path, kind: str, constants: tuple[np.ndarray, ...] = (), **attributes: object) -> torch.Tensor:
    """Checks a convolution and one operator behind it; returns what that one gives."""
    weight = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
    held = [numpy_helper.from_array(weight, "w")]
    held += [numpy_helper.from_array(value, f"c{place}") for place, value in enumerate(constants)]
    inputs = ["a", *(f"c{place}" if value.size else "" for place, value in enumerate(constants))]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(kind, inputs, ["y"], name="behind", **attributes),
    ]
    image, end = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ENDS)
    graph = helper.make_graph(nodes, "g", [image], [end], held)
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    executor = Executor(ModelGraph(path), "cpu")
    nodes, fed = executor.nodes(["y"], ["x"]), torch.from_numpy(IMAGE)
    executor.check(nodes, ["y"], fed)
    return executor.run(nodes, {"x": fed}, ["y"])["y"]


NONE = np.zeros(0, np.float32)
TWICE = np.array([1, 1, 2, 2], np.float32)


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("Resize", (NONE, TWICE), {"mode": "nearest"}),
        ("Resize", (NONE, TWICE), {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        ("Resize", (NONE, TWICE), {"mode": "linear"}),
        ("AveragePool", (), {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}),
        ("MaxPool", (), {"kernel_shape": [3, 3], "pads": [1, 1, 0, 0]}),
        ("HardSigmoid", (), {"alpha": 0.1}),
        ("ReduceMean", (np.array([2, 3]),), {}),
    ],
)
def test_what_is_known_is_computed_alike(
    tmp_path: Path, kind: str, constants: tuple[np.ndarray, ...], attributes: dict[str, object]
) -> None:
    assert float(checked(tmp_path, kind, constants, **attributes).std()) > 0.01


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"),
    [
        ("Resize", (NONE, TWICE), {"mode": "nearest", "nearest_mode": "ceil"}),
        ("Resize", (NONE, TWICE), {"mode": "nearest", "nearest_mode": "floor"}),
        ("Resize", (NONE, TWICE[2:]), {"axes": [2, 3]}),
        ("Resize", (NONE, np.array([1, 1, 0.5, 0.5], np.float32)), {"mode": "linear", "antialias": 1}),
        ("AveragePool", (), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("ConvTranspose", (np.ones((4, 2, 3, 3), np.float32),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ],
)
def test_settings_that_are_not_known_are_named(
    tmp_path: Path, kind: str, constants: tuple[np.ndarray, ...], attributes: dict[str, object]
) -> None:
    with pytest.raises(InputError, match=f"node 'behind': refinement knows no {kind} of "):
        checked(tmp_path, kind, constants, **attributes)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda attributes, inputs: inputs[0] * 1.1, "otherwise than ONNX Runtime"),
        (lambda attributes, inputs: inputs[0][:, :2], "otherwise than ONNX Runtime"),
        (lambda attributes, inputs: inputs[0] * torch.nan, "otherwise than ONNX Runtime"),
        (lambda attributes, inputs: inputs[0].reshape(7), "cannot run this model"),
    ],
)
def test_what_comes_out_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., object], words: str
) -> None:
    monkeypatch.setitem(operators.OPERATORS, "Relu", wrong)
    with pytest.raises(InputError, match=words):
        checked(tmp_path, "Relu")


def test_gates_are_one_node_unless_they_are_read_apart(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx"))
    executor = Executor(graph, "cpu")
    wanted = [layer.output for layer in graph.quantizable]
    nodes = executor.nodes(wanted, [graph.input])
    gates = [node for node in nodes if node.kind == "Sigmoid"]
    fewer = fused(nodes, wanted, ())
    assert gates and sum(node.kind == "Silu" for node in fewer) == len(nodes) - len(fewer) > 0
    image = torch.from_numpy(np.random.default_rng(0).random(graph.input_shape, dtype=np.float32))
    whole, other = (executor.run(one, {graph.input: image}, wanted) for one in (nodes, fewer))
    for name in wanted:
        torch.testing.assert_close(whole[name], other[name], rtol=1e-4, atol=1e-5)
    for apart in ({node.name for node in gates}, {node.outputs[0] for node in gates}):
        assert fused(nodes, wanted, apart) == nodes
    assert fused(nodes, [node.outputs[0] for node in gates], ()) == nodes
