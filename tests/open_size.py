"""Detectors of `tiny_detectors` as exporters write them with dynamic axes: of any size, anchors computed from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_detectors import STRIDES, build_detector


def open_detector(path: Path, layout: str = "scores", *, stated: tuple[int, int] | None = None) -> Path:
    """Writes a detector that leaves batch, height and width open.

    Args:
        path: Where to.
        layout: As `build_detector`'s; its weights are the same.
        stated: What its metadata calls its image size; None leaves that out.
    """
    model = onnx.load(build_detector(path, layout))
    graph = model.graph
    for dim, symbol in zip(graph.input[0].type.tensor_type.shape.dim, ("batch", "", "height", "width"), strict=True):
        if symbol:
            dim.dim_param = symbol
    for value in graph.output:
        rank = len(value.type.tensor_type.shape.dim)
        value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension()] * rank))
    del graph.value_info[:]
    kept = [tensor for tensor in graph.initializer if tensor.name not in ("anchors", "strides")]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = list(graph.node)
    first = next(index for index, node in enumerate(nodes) if "anchors" in node.input)
    convs = {node.name: node for node in nodes}
    levels = [convs[f"/model/7/cv2/{index}/0/conv/Conv"].input[0] for index in range(len(STRIDES))]
    made, arrays = _anchors(levels)
    del graph.node[:]
    graph.node.extend([*nodes[:first], *made, *nodes[first:]])
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items())
    metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != "imgsz"}
    helper.set_model_props(model, metadata | ({"imgsz": str(list(stated))} if stated else {}))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _anchors(levels: list[str]) -> tuple[list[onnx.NodeProto], dict[str, object]]:
    """Nodes that make ``anchors`` and ``strides`` from the sizes of the levels, and their constants."""
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name=f"make_{name}", **attributes))
        return name

    arrays: dict[str, object] = {
        "at_2": np.array(2), "at_3": np.array(3), "from_0": np.array(0), "by_1": np.array(1), "first": np.array([0]),
        "last_axis": np.array([-1]), "half": np.float32(0.5), "nothing": np.float32(0), "row": np.array([1, 1, -1]),
    }  # fmt: skip
    for index, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        shape = op("Shape", [level], f"shape{index}")
        height, width = (op("Gather", [shape, f"at_{axis}"], f"side{index}_{axis}") for axis in (2, 3))
        whole = [op("Unsqueeze", [side, "first"], f"{side}_list") for side in (height, width)]
        cells = op("Concat", whole, f"cells{index}", axis=0)
        flat = []
        for side, axis in ((width, "x"), (height, "y")):
            steps = op("Range", ["from_0", side, "by_1"], f"{axis}{index}")
            centres = op("Add", [op("Cast", [steps], f"{axis}{index}_float", to=1), "half"], f"{axis}{index}_centre")
            if axis == "y":
                centres = op("Unsqueeze", [centres, "last_axis"], f"y{index}_column")
            spread = op("Expand", [centres, cells], f"{axis}{index}_cells")
            flat.append(op("Reshape", [spread, "row"], f"{axis}{index}_flat"))
        op("Concat", flat, f"centres{index}", axis=1)
        arrays[f"stride{index}"] = np.float32(stride)
        op("Add", [op("Mul", [flat[0], "nothing"], f"none{index}"), f"stride{index}"], f"steps{index}")
    op("Concat", [f"centres{index}" for index in range(len(levels))], "anchors", axis=2)
    op("Concat", [f"steps{index}" for index in range(len(levels))], "strides", axis=2)
    return nodes, arrays
