import numpy as np
from onnx import TensorProto, helper, numpy_helper

from search_spaces.names import FreshNames, names_in


def test_fresh_names_differ_from_all_others() -> None:
    fresh = FreshNames(["a", "a_2"])
    assert [fresh("a"), fresh("a"), fresh("b"), fresh("b")] == ["a_3", "a_4", "b", "b_2"]


def test_names_of_inner_graphs_count() -> None:
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inner"], name="act")],
        "branch",
        [],
        [value("inner", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "held")],
    )
    node = helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, [1])], [])
    assert names_in(graph) == ({"x", "y", "inner", "held"}, {"choice", "act"})
