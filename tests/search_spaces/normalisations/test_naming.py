import pytest
from onnx import helper

from search_spaces.normalisations.naming import name_nodes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["", ""], ["Relu_0", "Relu_1"]),
        (["a", "a"], ["a", "a_1"]),
        (["a", "a", "a_1"], ["a", "a_1_2", "a_1"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_2_2"]),
        (["Relu_1", ""], ["Relu_1", "Relu_1_2"]),
    ],
)
def test_names_are_unique_and_those_that_were_stay(names: list[str], expected: list[str]) -> None:
    nodes = [helper.make_node("Relu", [str(i)], [str(i + 1)], name=name) for i, name in enumerate(names)]
    graph = helper.make_graph(nodes, "g", [], [])
    name_nodes(graph)
    assert [node.name for node in graph.node] == expected
