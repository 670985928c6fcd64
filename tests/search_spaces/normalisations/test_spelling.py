from onnx import TensorProto, helper

from search_spaces.normalisations.spelling import spell_plainly


def test_onnxs_domain_and_tensors_left_out_are_spelt_in_one_way() -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")], "branch", [], [value])
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", ""], domain="ai.onnx", kernel_shape=[2]),
        helper.make_node("Resize", ["p", "", "scales"], ["r"]),
        helper.make_node("Conv", ["r", "w", ""], ["c"]),
        helper.make_node("FusedConv", ["c", "w"], ["d"], domain="com.microsoft"),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    opsets = [helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [value]), opset_imports=opsets)
    spell_plainly(model)
    assert [entry.domain for entry in model.opset_import] == ["", "com.microsoft"]
    assert [node.domain for node in model.graph.node] == ["", "", "", "com.microsoft", ""]
    assert model.graph.node[4].attribute[0].g.node[0].domain == ""
    assert [list(node.output) for node in model.graph.node[:1]] == [["p"]]
    assert [list(node.input) for node in model.graph.node[1:3]] == [["p", "", "scales"], ["r", "w"]]
