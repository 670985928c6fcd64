"""The map of torch modules to ONNX layers, on weights alone: it needs no torch."""

import numpy as np
import onnx
import pytest
from tiny_detectors import build_detector

from objectives.torch_models.node_map import ModuleWeights, map_nodes
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


@pytest.fixture
def graph(tmp_path):
    return ModelGraph(build_detector(tmp_path / "model.onnx"))


def modules_of(graph, rename=lambda name: name):
    found = []
    for layer in graph.layers:
        weight = np.asarray(graph.initializers[layer.weight], np.float32)
        bias = graph.producer[layer.output].input[2:3]
        values = np.asarray(graph.initializers[bias[0]], np.float32) if bias else None
        found.append(ModuleWeights(rename(layer.module), "Conv2d", weight, values))
    return found


def test_every_quantizable_layer_finds_its_module(graph):
    found = map_nodes(graph, modules_of(graph))
    assert found.module_of == {layer.name: layer.module for layer in graph.quantizable}
    assert not found.unmatched and not found.unused and not any(match.renamed for match in found.matches)
    assert list(found.explained) == [layer.name for layer in graph.layers if not layer.quantizable]
    found.require_complete("a.pt", "a.onnx")


def test_weights_tell_where_names_differ(graph):
    found = map_nodes(graph, modules_of(graph, rename=lambda name: f"other.{name[::-1]}"))
    assert found.module_of == {layer.name: f"other.{layer.module[::-1]}" for layer in graph.quantizable}
    assert all(match.renamed for match in found.matches)


def test_a_name_does_not_outweigh_other_weights(graph):
    modules = modules_of(graph)
    first = modules[0]
    modules[0] = ModuleWeights(first.name, first.kind, first.weight * np.float32(1.01), first.bias)
    found = map_nodes(graph, modules)
    assert list(found.unmatched) == [graph.quantizable[0].name]
    assert first.name in found.unused
    with pytest.raises(InputError, match=r"b\.pt: is not what b\.onnx was exported from: 1 of 19 .*/model/0/conv"):
        found.require_complete("b.pt", "b.onnx")


def test_folding_in_another_order_is_the_same_weight(graph):
    draw = np.random.default_rng(0)
    modules = []
    for module in modules_of(graph):
        # A Conv and a BatchNorm that fold to this weight, folded in float32 as an exporter does.
        channels = module.weight.shape[0]
        gain = draw.uniform(0.5, 2, channels).astype(np.float32)
        deviation = draw.uniform(0.1, 3, channels).astype(np.float32)
        raw = (module.weight.astype(np.float64) * (deviation / gain)[:, None, None, None]).astype(np.float32)
        folded = raw * (gain / deviation)[:, None, None, None]
        modules.append(ModuleWeights(module.name, module.kind, folded.astype(np.float32), module.bias))
    found = map_nodes(graph, modules)
    assert len(found.matches) == len(graph.quantizable)
    assert 0 < max(match.weight_error for match in found.matches) < 1e-6


def test_another_bias_is_another_layer(graph):
    modules = modules_of(graph)
    changed = modules[3]
    assert changed.bias is not None
    modules[3] = ModuleWeights(changed.name, changed.kind, changed.weight, changed.bias + np.float32(0.5))
    assert list(map_nodes(graph, modules).unmatched.values()) == [
        f"the nearest module, {changed.name}, differs by 0.0e+00 of the largest weight, or in its bias"
    ]


def test_twins_are_not_guessed(graph):
    modules = modules_of(graph, rename=lambda name: f"x.{name}")
    twin = modules[0]
    modules.append(ModuleWeights("y.twin", twin.kind, twin.weight, twin.bias))
    found = map_nodes(graph, modules)
    assert found.unmatched == {graph.quantizable[0].name: f"2 modules have these weights: {twin.name}, y.twin"}


@pytest.fixture
def decoder(tmp_path):
    """Two decoder layers that begin alike, and one module that both use, as DETR's exports have them."""
    draw = np.random.default_rng(0)
    values = {name: draw.normal(size=(8, 8)).astype(np.float32) for name in ("first", "shared0")}
    values |= {"twin": values["first"], "shared1": values["shared0"]}  # an exporter writes one constant for each use
    nodes, tensor = [], "images"
    for index, weight in enumerate(("first", "twin")):
        for part, name in (("attn/Gemm", weight), (f"pos/MatMul_{index}", f"shared{index}")):
            out = f"t{len(nodes)}"
            path = f"/dec/layers.{index}/{part}" if name == weight else f"/dec/{part}"
            nodes.append(onnx.helper.make_node("MatMul", [tensor, name], [out], name=path))
            tensor = out
    shape = (onnx.TensorProto.FLOAT, [1, 3, 4, 8])
    graph = onnx.helper.make_graph(
        nodes,
        "decoder",
        [onnx.helper.make_tensor_value_info("images", *shape)],
        [onnx.helper.make_tensor_value_info(tensor, *shape)],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "decoder.onnx")
    return ModelGraph(tmp_path / "decoder.onnx"), values


def test_copies_are_told_apart_by_where_they_lie_and_a_module_may_be_used_twice(decoder):
    graph, values = decoder
    modules = [
        ModuleWeights("dec.layers.1.attn.out_proj", "Linear", values["twin"].T, None),
        ModuleWeights("dec.layers.0.attn.out_proj", "Linear", values["first"].T, None),
        ModuleWeights("dec.pos", "Linear", values["shared0"].T, None),
    ]
    found = map_nodes(graph, modules)
    assert found.module_of == {
        "/dec/layers.0/attn/Gemm": "dec.layers.0.attn.out_proj",
        "/dec/pos/MatMul_0": "dec.pos",
        "/dec/layers.1/attn/Gemm": "dec.layers.1.attn.out_proj",
        "/dec/pos/MatMul_1": "dec.pos",
    }
    assert not found.unmatched and not found.unused
