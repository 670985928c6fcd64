"""Mutations of ONNX models by structure: shapes, types, names, attributes, external data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from fuzz_mutations import Draw, bytes_changed
from onnx import TensorProto, helper, numpy_helper

_DIMS = (-1, 0, 1, 3, 4, 6, 7, 33, 1 << 16, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
_VALUES = (-1, 0, 1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)
_TYPES = (0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 16, 17, 21, 22, 23, 99)
_LITERALS = (
    "(" * 3000, "-" * 60_000 + "1", "{'a': 'b'}", "{0: 'a', 1: 'a'}", "[1, 2]", "{1.5: 'x'}", "9" * 9000, "{[]: 1}",
    "()", "None", "{0: " + "'x'" * 20_000 + "}", "{-1: 'a'}", "[64, 'x']", "[1e400, 1]", "__import__('os').getcwd()",
    "{'0': 'a', '1': 'b', '2': 'c'}", "\0", "[99999999, 99999999]", "[-1, -1]", "{None: 1}",
)  # fmt: skip
_OPS = ("Conv", "Resize", "Tile", "ConstantOfShape", "Loop", "If", "Identity", "Constant", "Range", "NoSuchOp",
        "Gemm", "ConvTranspose", "Concat", "Reshape", "Expand", "NonZero", "QuantizeLinear", "Split")  # fmt: skip
ESCAPES = ("../outside/secret.bin", "/etc/passwd", "{outside}/secret.bin", "sub/../../outside/secret.bin", "link.bin")


def model_changed(draw: Draw, data: bytes, other: bytes) -> bytes:
    """A model changed in its structure, mostly, or in its bytes."""
    if draw.random() < 0.3:
        if draw.random() < 0.5:  # near the graph's head and tail, where names, types and shapes lie
            cut = draw.choice((2000, len(data) - 9000))
            return data[:cut] + bytes_changed(draw, data[cut : cut + 4000]) + data[cut + 4000 :]
        return bytes_changed(draw, data, other)
    model = onnx.load_model_from_string(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice((_values, _weights, _attributes, _wires, _nodes, _metadata, _head))(draw, model)
    return model.SerializeToString()


def escaping(draw: Draw, data: bytes, given: Path, outside: Path) -> bytes:
    """A model whose weight lies outside its folder, by path or by link; no reader may accept it."""
    model = onnx.load_model_from_string(data)
    location = draw.choice(ESCAPES).format(outside=outside)
    if location == "link.bin":
        (given / location).symlink_to(outside / "secret.bin")
    if location.startswith("sub/"):
        (given / "sub").mkdir(exist_ok=True)
    tensor = draw.choice(model.graph.initializer)
    if draw.random() < 0.4:  # in a node's attribute
        attribute = helper.make_attribute("value", tensor)
        node = onnx.NodeProto(op_type="Constant", output=[tensor.name], name="hidden", attribute=[attribute])
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(0, node)
        tensor = model.graph.node[0].attribute[0].t
    array = numpy_helper.to_array(tensor)
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": "0", "length": str(array.nbytes)}
    if location == "/etc/passwd":
        entries["length"] = str(min(array.nbytes, Path(location).stat().st_size))
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def external_changed(draw: Draw, data: bytes) -> bytes:
    """Odd offsets, lengths and places of external data."""
    model = onnx.load_model_from_string(data)
    tensor = draw.choice([t for t in model.graph.initializer if t.external_data])
    entry = draw.choice(list(tensor.external_data))
    odd = ("-1", str(1 << 62), "", "x", "1e9", "weights.bin\0", "no.bin", "\ud7ff", ".", "weights.bin/", "9" * 5000)
    entry.value = draw.choice(odd)
    return model.SerializeToString()


def _values(draw: Draw, model: onnx.ModelProto) -> None:
    """Shape or type of an input, output or inner value."""
    graph = model.graph
    value = draw.choice([*graph.input, *graph.output, *list(graph.value_info)[:3]])
    kind = value.type.tensor_type
    if draw.random() < 0.3 or not kind.shape.dim:
        kind.elem_type = draw.choice(_TYPES)
        return
    match draw.randrange(4):
        case 0:
            draw.choice(list(kind.shape.dim)).dim_param = draw.choice(("batch", "", "x" * 9000))
        case 1:
            kind.shape.dim.add().dim_value = draw.choice(_DIMS)
        case 2:
            value.ClearField(draw.choice(("type", "name")))
        case _:
            for dim in list(kind.shape.dim)[draw.choice((0, 1, 2)) :]:
                dim.dim_value = draw.choice(_DIMS)


def _weights(draw: Draw, model: onnx.ModelProto) -> None:
    """Dims, type, data or name of an initializer, or another one of the same name."""
    tensors = model.graph.initializer
    tensor = draw.choice(tensors)
    match draw.randrange(7):
        case 0:
            tensor.dims[:] = [draw.choice(_DIMS) for _ in range(draw.randrange(6))]
        case 1:
            tensor.data_type = draw.choice(_TYPES)
        case 2:
            tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
        case 3:
            array = numpy_helper.to_array(tensor).copy()
            if array.size:
                array.flat[draw.randrange(array.size)] = (
                    draw.choice((np.nan, np.inf, 3e38)) if array.dtype.kind == "f" else draw.choice(_VALUES)
                )
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        case 4:
            tensor.name = draw.choice(("", "images", "output0", draw.choice(tensors).name))
        case 5:
            tensors.add().CopyFrom(tensor)
        case _:
            tensors.remove(tensor)


def _attributes(draw: Draw, model: onnx.ModelProto) -> None:
    """A value, type or name of a node's attribute."""
    nodes = [node for node in model.graph.node if node.attribute]
    attributes = draw.choice(nodes).attribute
    entry = draw.choice(attributes)
    odd = (draw.choice(_VALUES), -draw.choice(_VALUES), [draw.choice(_VALUES)] * 3, 1.5, "x", [], ["a"], b"\xff")
    match draw.randrange(4):
        case 0:
            entry.type = draw.randrange(15)
        case 1:
            attributes.remove(entry)
        case 2:
            attributes.add().CopyFrom(entry)
        case _:
            value = draw.choice(odd)
            name = draw.choice((entry.name, entry.name, "group", "axis"))
            entry.CopyFrom(helper.make_attribute(name, value, attr_type=None if value != [] else 7))


def _wires(draw: Draw, model: onnx.ModelProto) -> None:
    """An input or output of a node renamed, removed or exchanged: cycles, shadows, dangling names."""
    nodes = model.graph.node
    node, other = draw.choice(nodes), draw.choice(nodes)
    names = node.input if node.input and draw.random() < 0.7 else node.output
    where = draw.randrange(len(names))
    match draw.randrange(4):
        case 0:
            names[where] = draw.choice(other.output)
        case 1:
            names[where] = draw.choice(("", "images", "output0", "nothing"))
        case 2:
            del names[where]
        case _:
            names.append(draw.choice(other.output))


def _nodes(draw: Draw, model: onnx.ModelProto) -> None:
    """A node removed, doubled, moved, renamed, of another operator, or a bomb appended."""
    nodes = model.graph.node
    node = draw.choice(nodes)
    match draw.randrange(7):
        case 0:
            nodes.remove(node)
        case 1:
            nodes.add().CopyFrom(node)
        case 2:
            kept = list(nodes)
            draw.shuffle(kept)
            del nodes[:]
            nodes.extend(kept)
        case 3:
            node.op_type = draw.choice(_OPS)
        case 4:
            node.name = draw.choice(("", draw.choice(nodes).name, "/", "a|b\n<i>", "\x1b[31m", "x" * 9000))
        case 5:
            node.domain = draw.choice(("", "ai.onnx.ml", "nowhere"))
        case _:
            _append_bomb(draw, model)


def _append_bomb(draw: Draw, model: onnx.ModelProto) -> None:
    """Nodes whose result is enormous, or that never end."""
    graph = model.graph
    size = draw.choice((1 << 20, 1 << 33, 1 << 40))
    shape = numpy_helper.from_array(np.array([draw.choice((1, 64)), size], np.int64), "bomb_shape")
    graph.initializer.append(shape)
    if draw.random() < 0.5:
        graph.node.append(helper.make_node("ConstantOfShape", ["bomb_shape"], ["bomb"], name="bomb"))
    else:
        graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "bomb_seed"))
        graph.node.append(helper.make_node("Expand", ["bomb_seed", "bomb_shape"], ["bomb"], name="bomb"))
    if draw.random() < 0.5:
        graph.output.append(helper.make_tensor_value_info("bomb", TensorProto.FLOAT, None))


def _metadata(draw: Draw, model: onnx.ModelProto) -> None:
    """What Ultralytics writes beside the graph: names, image size, stride; and the exporter's scopes."""
    if draw.random() < 0.2:
        draw.choice(model.graph.node).metadata_props.add(key="pkg.torch.onnx.name_scopes", value=draw.choice(_LITERALS))
        return
    kept = {entry.key: entry.value for entry in model.metadata_props}
    kept[draw.choice(("names", "imgsz", "stride"))] = draw.choice(_LITERALS)
    del model.metadata_props[:]
    helper.set_model_props(model, kept)


def _head(draw: Draw, model: onnx.ModelProto) -> None:
    """Versions, functions, and all that stands before the graph."""
    match draw.randrange(5):
        case 0:
            model.ir_version = draw.choice((0, 1, 3, 12, 99, (1 << 62)))
        case 1:
            model.opset_import[0].version = draw.choice((-1, 0, 1, 6, 9, 13, 21, 25, 999, 1 << 40))
        case 2:
            del model.opset_import[:]
        case 3:
            model.opset_import[0].domain = draw.choice(("ai.onnx", "ai.onnx.ml", "x"))
        case _:
            model.graph.ClearField(draw.choice(("input", "output", "initializer", "node", "name")))
