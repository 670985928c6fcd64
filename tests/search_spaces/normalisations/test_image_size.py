from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from open_size import open_detector
from tiny_detectors import build_detector

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.detector import recognise
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _infer(model: bytes | Path, image: np.ndarray) -> np.ndarray:
    with OnnxRuntimeRunner(model, threads=1) as runner:
        return np.asarray(runner.infer(image)[0])


@pytest.mark.parametrize("layout", ["scores", "end_to_end"])
@pytest.mark.parametrize(("stated", "given"), [((64, 64), None), (None, (64, 96)), ((64, 64), (96, 64))])
def test_the_size_that_is_given_else_stated_is_fixed(
    tmp_path: Path, layout: str, stated: tuple[int, int] | None, given: tuple[int, int] | None
) -> None:
    path = open_detector(tmp_path / "m.onnx", layout, stated=stated)
    graph = ModelGraph(path, image_size=given)
    size = given or stated
    assert size is not None
    assert graph.input_shape == (1, 3, *size)
    assert graph.sized == size
    assert all(0 not in shape for shape in graph.outputs.values())
    assert all(layer.input_shape and layer.output_shape and layer.macs for layer in graph.quantizable)
    assert not {"Shape", "Range", "Expand"} & {node.op_type for node in graph.nodes()}
    image = np.random.default_rng(0).random((1, 3, *size), np.float32)
    np.testing.assert_allclose(_infer(graph.model.SerializeToString(), image), _infer(path, image), atol=1e-5)
    contract = recognise(graph, image_size=given)
    assert (contract.name, contract.image_size) == (layout, size)


def test_it_is_the_model_that_was_exported_at_that_size(tmp_path: Path) -> None:
    fixed = ModelGraph(build_detector(tmp_path / "fixed.onnx"))
    graph = ModelGraph(open_detector(tmp_path / "open.onnx", stated=(64, 64)))
    assert graph.outputs == fixed.outputs
    assert graph.layers == fixed.layers
    assert graph.edges == fixed.edges
    assert [node.op_type for node in graph.nodes()] == [node.op_type for node in fixed.nodes()]
    for name in ("anchors", "strides"):
        np.testing.assert_array_equal(graph.initializers[name], fixed.initializers[name])


def test_a_fixed_size_is_not_touched(tmp_path: Path) -> None:
    path = build_detector(tmp_path / "m.onnx")
    graph = ModelGraph(path, image_size=(96, 96))
    assert (graph.input_shape, graph.sized, graph.digest) == ((1, 3, 64, 64), None, ModelGraph(path).digest)
    with pytest.raises(InputError, match=r"model\.image_size: \[96, 96\] but the model takes \[64, 64\] only"):
        recognise(graph, image_size=(96, 96))


def test_another_size_is_another_model(tmp_path: Path) -> None:
    path = open_detector(tmp_path / "m.onnx", stated=(64, 64))
    own = ModelGraph(path).digest
    assert ModelGraph(path, image_size=(64, 64)).digest == own
    others = {ModelGraph(path, image_size=size).digest for size in ((96, 64), (64, 96))}
    assert len(others | {own}) == 3


def test_batch_and_size(tmp_path: Path) -> None:
    path = open_detector(tmp_path / "m.onnx", stated=(64, 96))
    graph = ModelGraph(path, batch=2)
    assert (graph.input_shape, graph.sized) == ((2, 3, 64, 96), (64, 96))
    image = np.random.default_rng(0).random((2, 3, 64, 96), np.float32)
    np.testing.assert_allclose(_infer(graph.model.SerializeToString(), image), _infer(path, image), atol=1e-5)


@pytest.mark.parametrize("stated", [None, (0, 64), (10**6, 10**6), (-64, 64)])
def test_no_size_is_one_line_that_names_the_option(tmp_path: Path, stated: tuple[int, int] | None) -> None:
    graph = ModelGraph(open_detector(tmp_path / "m.onnx", stated=stated))
    assert graph.sized is None
    with pytest.raises(InputError, match=r"give --image-size") as caught:
        recognise(graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [(16, 64), (64, 10**5), (-1, 64)])
def test_what_is_no_size_of_images_is_refused(tmp_path: Path, given: tuple[int, int]) -> None:
    path = open_detector(tmp_path / "m.onnx", stated=(64, 64))
    with pytest.raises(InputError, match=r"model\.image_size: .* at least 32 and at most 4096"):
        ModelGraph(path, image_size=given)


def test_a_size_that_its_operators_cannot_have_is_told_with_the_option(tmp_path: Path) -> None:
    """Two scales meet in a Concat: 36 pixels have 9 cells of 4, and 2 x 5 of 8."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="fine", strides=[4, 4], pads=[1] * 4),
        helper.make_node("Conv", ["a", "v"], ["b"], name="coarse", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Resize", ["b", "", "scales"], ["up"], name="up", mode="nearest"),
        helper.make_node("Concat", ["a", "up"], ["y"], name="join", axis=1),
    ]
    draw = np.random.default_rng(0)
    arrays = {
        "w": draw.normal(size=(4, 3, 3, 3)), "v": draw.normal(size=(4, 4, 3, 3)), "scales": np.array([1, 1, 2, 2]),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert ModelGraph(path, image_size=(64, 64)).shapes["y"] == (1, 8, 16, 16)
    with pytest.raises(InputError, match=r"takes no images of 36 x 36: .*give another --image-size") as caught:
        ModelGraph(path, image_size=(36, 36))
    assert "\n" not in str(caught.value)
