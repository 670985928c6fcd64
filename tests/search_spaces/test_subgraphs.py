from onnx import NodeProto, TensorProto, helper

from search_spaces.subgraphs import inner_graphs, reads, rename_reads


def _loop() -> NodeProto:
    """A loop whose body reads ``w`` from outside, in a branch of its own, and ``state`` of itself."""
    value = helper.make_tensor_value_info
    deep = helper.make_graph(
        [helper.make_node("Mul", ["state", "w"], ["m"])], "deep", [], [value("m", TensorProto.FLOAT, [1])]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("If", ["going"], ["next"], then_branch=deep, else_branch=deep),
        ],
        "body",
        [value(name, TensorProto.FLOAT, [1]) for name in ("count", "going", "state")],
        [value(name, TensorProto.FLOAT, [1]) for name in ("on", "next")],
    )
    return helper.make_node("Loop", ["times", "", "state"], ["y"], body=body)


def test_a_node_reads_what_its_inner_graphs_read_from_outside() -> None:
    assert set(reads(_loop())) == {"times", "", "state", "w"}


def test_only_what_comes_from_outside_is_renamed() -> None:
    node = _loop()
    rename_reads(node, {"w": "v", "state": "other"})
    assert list(node.input) == ["times", "", "other"]
    (body,) = inner_graphs(node)
    deep = next(inner_graphs(body.node[1]))
    assert list(deep.node[0].input) == ["state", "v"]
