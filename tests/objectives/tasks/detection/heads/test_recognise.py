import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_detectors import NAMES, build_detector

from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.heads.grid import anchor_strides
from objectives.tasks.detection.heads.raw import RawHead
from objectives.tasks.detection.heads.structure import channel_parts, dense_head
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


@pytest.mark.parametrize("layout", ["scores", "raw", "end_to_end"])
@pytest.mark.parametrize("names", [True, False])
def test_layout_is_read_from_the_structure(tmp_path, layout, names):
    contract = recognise(ModelGraph(build_detector(tmp_path / "m.onnx", layout, names=names)))
    assert (contract.name, contract.class_count, contract.image_size) == (layout, 3, (64, 64))
    assert contract.classes == (NAMES[:3] if names else ())
    if isinstance(contract.head, RawHead):
        assert (contract.head.reg_max, contract.head.strides) == (16, (8, 16, 32))


@pytest.mark.parametrize("layout", ["scores", "raw"])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_transposed_outputs_and_other_class_counts(tmp_path, layout, classes):
    path = build_detector(tmp_path / "m.onnx", layout, classes=classes, size=96, transposed=True)
    contract = recognise(ModelGraph(path))
    assert (contract.name, contract.class_count, contract.head.transposed) == (layout, classes, True)
    assert contract.image_size == (96, 96)


def test_dynamic_batch(tmp_path):
    contract = recognise(ModelGraph(build_detector(tmp_path / "m.onnx", dynamic_batch=True)))
    assert (contract.name, contract.class_count) == ("scores", 3)


@pytest.mark.parametrize("factor", [0.02, 1.0])
def test_a_share_of_a_probability_is_no_logit(tmp_path, factor: float) -> None:
    """Seven channels might be bins and classes as well."""
    model = onnx.load(build_detector(tmp_path / "m.onnx"))
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(helper.make_node("Mul", ["factor", "whole"], [node.output[0]]))
    node.output[0] = "whole"
    onnx.save(model, tmp_path / "n.onnx")
    assert recognise(ModelGraph(tmp_path / "n.onnx")).name == "scores"


def test_dense_head_precedes_the_selection(tmp_path):
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "end_to_end"))
    head = dense_head(graph)
    assert head is not None
    assert (head.tensor, head.classes, head.anchors, head.transposed) == (
        "/model.7/Concat_3_output_0",
        3,
        84,
        False,
    )
    assert head.corners
    plain = dense_head(ModelGraph(build_detector(tmp_path / "s.onnx", "scores")))
    assert plain is not None
    assert not plain.corners
    assert dense_head(ModelGraph(build_detector(tmp_path / "r.onnx", "raw"))) is None


def test_raw_parts(tmp_path):
    parts = channel_parts(ModelGraph(build_detector(tmp_path / "m.onnx", "raw")), "output0")
    assert parts is not None
    assert (parts.boxes, parts.classes, parts.sigmoid) == (64, 3, False)


def test_overrides(tmp_path):
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", names=False))
    assert recognise(graph, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    with pytest.raises(InputError, match=r"m\.onnx: output0 has 3 classes but there are 2 class names; see --classes"):
        recognise(graph, classes=["a", "b"])
    with pytest.raises(InputError, match=r"did you mean 'scores'"):
        recognise(graph, head="score")
    with pytest.raises(InputError, match=r"'a' occurs more than once"):
        recognise(graph, classes=["a", "a", "c"])
    with pytest.raises(InputError, match=r"model\.image_size: \[32, 32\]"):
        recognise(graph, image_size=(32, 32))


def _model(path, inputs, shape_out):
    weight = onnx.helper.make_tensor("w", 1, [8, inputs[1], 3, 3], [0.1] * (8 * inputs[1] * 9))
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4, name="c"),
        onnx.helper.make_node("Reshape", ["y", "s"], ["out"], name="r"),
    ]
    shape = onnx.helper.make_tensor("s", 7, [len(shape_out)], shape_out)
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, inputs)],
        [onnx.helper.make_tensor_value_info("out", 1, shape_out)],
        [weight, shape],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)


def test_other_models_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"m\.onnx: is not a detector .* out \(1, 8192\)"):
        recognise(_model(tmp_path / "m.onnx", [1, 3, 32, 32], [1, 8192]))
    with pytest.raises(InputError, match=r"g\.onnx: is not a detector of colour images"):
        recognise(_model(tmp_path / "g.onnx", [1, 1, 32, 32], [1, 8192]))
    with pytest.raises(InputError, match=r"neither the structure nor class names"):
        recognise(_model(tmp_path / "n.onnx", [1, 3, 32, 32], [1, 32, 256]))


def test_anchor_strides():
    assert anchor_strides(8400, (640, 640)) == (8, 16, 32)
    assert anchor_strides(80 * 64 + 40 * 32 + 20 * 16, (512, 640)) == (8, 16, 32)
    assert anchor_strides(34000, (640, 640)) == (4, 8, 16, 32)
    assert anchor_strides(300, (640, 640)) == ()


def test_real_models(shared_data):
    first = recognise(ModelGraph(shared_data / "models" / "yolov10s.onnx"))
    second = recognise(ModelGraph(shared_data / "models" / "yolov8n.onnx"))
    assert (first.name, second.name) == ("end_to_end", "scores")
    assert first.classes == second.classes
    assert (len(first.classes), first.image_size) == (80, (640, 640))
    heads = [dense_head(ModelGraph(shared_data / "models" / f"{name}.onnx")) for name in ("yolov10s", "yolov8n")]
    assert [head is not None and head.corners for head in heads] == [True, False]


@pytest.mark.parametrize("layout", ["scores", "raw", "end_to_end", "segment", "pose", "oriented", "dfine", "detr"])
def test_a_division_in_the_graph_is_not_done_twice(tmp_path, layout: str) -> None:
    model = onnx.load(build_detector(tmp_path / "m.onnx", layout))
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["shares" if name == image else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "brightest"))
    model.graph.node.insert(0, helper.make_node("Div", [image, "brightest"], ["shares"]))
    onnx.save(model, tmp_path / "n.onnx")
    before, after = (recognise(ModelGraph(tmp_path / name)) for name in ("m.onnx", "n.onnx"))
    assert after.name == before.name
    assert (before.preprocessing.divisor, after.preprocessing.divisor) == (255.0, 1.0)
