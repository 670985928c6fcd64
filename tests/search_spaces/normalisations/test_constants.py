import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from search_spaces.normalisations.constants import close_inputs, lift_constants


def _value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_initializers_are_no_inputs_even_of_the_oldest_files() -> None:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    graph = helper.make_graph([], "g", [_value("w", 3), _value("x", 1)], [], [weight])
    model = helper.make_model(graph, ir_version=3)
    close_inputs(model)
    assert [value.name for value in model.graph.input] == ["x"] and model.ir_version == 4


@pytest.mark.parametrize("places", [np.array([1, 5]), np.array([[0, 1], [1, 2]])])
def test_sparse_weights_get_their_zeros(places: np.ndarray) -> None:
    parts = numpy_helper.from_array(np.float32([7, 8]), "w"), numpy_helper.from_array(places, "places")
    graph = helper.make_graph([], "g", [_value("x", 1)], [])
    graph.sparse_initializer.append(helper.make_sparse_tensor(*parts, [2, 3]))
    model = helper.make_model(graph)
    close_inputs(model)
    assert not model.graph.sparse_initializer
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), [[0, 7, 0], [0, 0, 8]])


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value_float": 2.5}, np.float32(2.5)),
        ({"value_floats": [1.0, 2.0]}, np.float32([1, 2])),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [4, 5]}, np.int64([4, 5])),
        ({"value": numpy_helper.from_array(np.float32([[6]]))}, np.float32([[6]])),
    ],
)
def test_every_form_of_constant_is_lifted(attribute: dict, expected: np.ndarray) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **attribute),
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Shape", ["d"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [_value("y")])
    lift_constants(graph)
    assert [node.op_type for node in graph.node] == ["Shape"] and list(graph.node[0].input) == ["c"]
    found = numpy_helper.to_array(graph.initializer[0])
    assert found.dtype == np.asarray(expected).dtype and np.array_equal(found, expected)


def test_a_constant_that_is_an_output_stays_a_node() -> None:
    nodes = [helper.make_node("Constant", [], ["c"], value_float=1.0), helper.make_node("Identity", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [_value("c"), _value("y")])
    lift_constants(graph)
    assert [node.op_type for node in graph.node] == ["Constant", "Identity"]


def test_an_alias_is_followed_into_inner_graphs_but_not_over_their_own_names() -> None:
    def branch(name: str, nodes: list) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [_value(f"{name}.out")])

    outer = branch("outer", [helper.make_node("Relu", ["alias"], ["outer.out"])])
    own = [helper.make_node("Neg", ["x"], ["alias"]), helper.make_node("Relu", ["alias"], ["own.out"])]
    nodes = [
        helper.make_node("Identity", ["w"], ["alias"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=outer, else_branch=branch("own", own)),
    ]
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    graph = helper.make_graph(nodes, "g", [_value("x", 3)], [_value("y")], [weight])
    lift_constants(graph)
    (choice,) = graph.node
    read = {entry.name: entry.g.node[-1].input[0] for entry in choice.attribute}
    assert read == {"then_branch": "w", "else_branch": "alias"}
