"""Plugins: operators that are not ONNX's, which one runtime has and another lacks, such as TensorRT's suppression."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx

from search_spaces.subgraphs import inner_graphs, reads

#: The domain under which TensorRT's exporters write its plugins; where they leave it empty it is filled in.
PLUGIN_DOMAIN = "TRT"
_EVERYWHERE = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft")


def name_plugins(model: onnx.ModelProto) -> None:
    """Gives operators that ONNX's own domain does not have the domain of plugins, and imports it, in place.

    TensorRT looks a plugin up by its operator alone; onnx's checker knows no such operator in ONNX's domain.
    """
    local = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model.graph):
        if not node.domain and ("", node.op_type) not in local and not onnx.defs.has(node.op_type):
            node.domain = PLUGIN_DOMAIN
    imported = {entry.domain for entry in model.opset_import}
    for domain in dict.fromkeys(node.domain for node in _nodes(model.graph)):
        if domain not in imported and domain not in ("", "ai.onnx"):
            model.opset_import.append(onnx.helper.make_opsetid(domain, 1))


def plugins(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operators of a model that are plugins, each once."""
    return tuple(dict.fromkeys(node.op_type for node in _nodes(model.graph) if _is_plugin(node)))


def refusal(model: onnx.ModelProto, runtime: str, lacking: Collection[str] = ()) -> str:
    """Why a runtime that has no plugins cannot run a model, in one clause; empty where it can.

    Args:
        model: With its plugins named.
        runtime: Its title.
        lacking: Operators of ONNX's own that it does not have either.
    """
    plain = [node.op_type for node in _nodes(model.graph) if not _is_plugin(node) and node.op_type in lacking]
    found = tuple(dict.fromkeys([*plugins(model), *plain]))
    if not found:
        return ""
    # What suppression leaves is found by NonZero.
    what = "NMS" if all("NMS" in name or name == "NonZero" for name in found) else "it"
    return f"holds {' and '.join(found)}, which {runtime} does not have; export without {what}, or run it on TensorRT"


def without_plugins(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model up to its plugins: what they and all behind them make is left out, and their inputs are outputs.

    Args:
        model: Not changed; returned as it is where it holds none.
    """
    if not plugins(model):
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    gone: set[str] = set()
    kept, borders = [], []
    for node in model.graph.node:
        if _is_plugin(node) or gone & set(reads(node)) or any(map(_is_plugin, _inner(node))):
            gone.update(node.output)
            borders += list(node.input)
        else:
            kept.append(node)
    made = {name for node in kept for name in node.output}
    types = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    outputs = [value for value in model.graph.output if value.name not in gone]
    known = {value.name for value in outputs}
    for name in dict.fromkeys(borders):
        if name in made and name not in known:
            outputs.append(types.get(name) or onnx.ValueInfoProto(name=name))
    infos = [value for value in model.graph.value_info if value.name in made]
    for field, values in ((cut.graph.node, kept), (cut.graph.output, outputs), (cut.graph.value_info, infos)):
        del field[:]
        field.extend(values)
    return cut


def _is_plugin(node: onnx.NodeProto) -> bool:
    return node.domain not in _EVERYWHERE


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for graph in inner_graphs(node):
        yield from _nodes(graph)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        yield from _inner(node)
