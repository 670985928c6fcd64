"""Models that put out the same known objects whatever the image shows, in the forms that exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = (64, 64)


def constant_model(
    path: Path,
    outputs: dict[str, NDArray[np.generic]],
    *,
    metadata: dict[str, str] | None = None,
    linear: frozenset[str] = frozenset(),
    single: bool = False,
    extra_nodes: tuple[str, ...] = (),
    kernel: int = 3,
) -> Path:
    """Writes a model of one Conv whose output is multiplied by 0 and added to what is put out.

    Args:
        path: File to write.
        outputs: ``{name: values}``; whole numbers are put out as int64.
        metadata: Of the model.
        linear: Outputs, shares in (0, 1), that are the sigmoid of a linear layer, as DETR's boxes are.
        single: The input is one image without a batch.
        extra_nodes: Operators that the graph shall hold besides, which mark a family.
        kernel: Of the Conv, and its stride.
    """
    weights = {"weight": np.full((1, 3, kernel, kernel), 0.01, np.float32), "nothing": np.float32(0)}
    shape = [3, *SIZE] if single else [1, 3, *SIZE]
    nodes = [helper.make_node("Unsqueeze", ["image", "first"], ["batch"], name="unsqueeze")] if single else []
    weights["first"] = np.array([0])
    nodes += [
        helper.make_node("Conv", ["batch" if single else "image", "weight"], ["y"], name="c", strides=[kernel] * 2),
        helper.make_node("ReduceMean", ["y"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"], name="mul"),
    ]
    for index, kind in enumerate(extra_nodes):
        nodes += _marker(kind, index, weights)
    infos = []
    for name, values in outputs.items():
        whole = np.issubdtype(values.dtype, np.integer)
        if name in linear:
            count = values.shape[1]
            weights[f"{name}_rows"] = np.eye(count, dtype=np.float32)[None]
            weights[f"{name}_weight"] = np.log(values[0] / (1 - values[0])).astype(np.float32)
            weights[f"{name}_bias"] = np.zeros(4, np.float32)
            nodes += [
                helper.make_node("Add", [f"{name}_rows", "zero"], [f"{name}_0"], name=f"{name}/rows"),
                helper.make_node("MatMul", [f"{name}_0", f"{name}_weight"], [f"{name}_1"], name=f"{name}/matmul"),
                helper.make_node("Add", [f"{name}_1", f"{name}_bias"], [f"{name}_2"], name=f"{name}/bias"),
                helper.make_node("Sigmoid", [f"{name}_2"], [name], name=f"{name}/sigmoid"),
            ]
        else:
            weights[f"{name}_values"] = values.astype(np.float32)
            nodes.append(helper.make_node("Add", [f"{name}_values", "zero"], [f"{name}_0"], name=f"{name}/add"))
            last = ("Cast", {"to": TensorProto.INT64}) if whole else ("Identity", {})
            nodes.append(helper.make_node(last[0], [f"{name}_0"], [name], name=f"{name}/out", **last[1]))
        infos.append(helper.make_tensor_value_info(name, TensorProto.INT64 if whole else TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        infos,
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _marker(kind: str, index: int, weights: dict[str, NDArray[np.generic]]) -> list[onnx.NodeProto]:
    """An operator that reads the features, and whose result nobody reads."""
    inputs, attributes, outputs = ["y"], {}, [f"mark_{index}"]
    if kind == "TopK":
        weights[f"k_{index}"] = np.array([1])
        inputs, outputs = ["y", f"k_{index}"], [f"mark_{index}", f"at_{index}"]
    if kind == "GridSample":
        kind, weights[f"grid_{index}"] = "GridSample", np.zeros((1, 1, 1, 2), np.float32)
        inputs = ["y", f"grid_{index}"]
    return [helper.make_node(kind, inputs, outputs, name=f"mark_{index}", **attributes)]


def dense_rows(boxes: NDArray[np.float32], classes: list[int], count: int, extra: NDArray[np.float32]) -> NDArray:
    """Known objects at the first anchors of (1, 4 + count + extra, 84), boxes of x1, y1, x2, y2 in input pixels."""
    rows = np.zeros((1, 4 + count + extra.shape[1], 84), np.float32)
    for index, (box, label, values) in enumerate(zip(boxes, classes, extra, strict=True)):
        rows[0, :4, index] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
        rows[0, 4 + label, index] = 0.9 - 0.1 * index
        rows[0, 4 + count :, index] = values
    return rows


def best_rows(boxes: NDArray[np.float32], classes: list[int], extra: NDArray[np.float32], count: int = 30) -> NDArray:
    """Known objects as (1, count, 6 + extra): box, score, class, further values; the rest are zeros."""
    rows = np.zeros((1, count, 6 + extra.shape[1]), np.float32)
    scores = 0.9 - 0.1 * np.arange(len(boxes))
    rows[0, : len(boxes)] = np.column_stack([boxes, scores, classes, extra])
    return rows
