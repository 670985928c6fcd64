"""The ends of tiny detectors that are not of Ultralytics' detection, for `tiny_detectors.build_detector`.

Each returns the outputs, in order. The queries of the DETR family are the 84 cells of three levels.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

COEFFICIENTS, KEYPOINTS = 8, 5
TASKS = {"segment": "segment", "pose": "pose", "oriented": "obb"}
EXTRA = {"segment": COEFFICIENTS, "pose": 3 * KEYPOINTS, "oriented": 1}
QUERIES = {"detr": 1, "deformable_detr": 0, "dfine": 0}  # classes beside the real ones


def extra_values(net, levels: list[str], layout: str, size: int) -> str:
    """What an instance head says of every anchor behind its classes: shape (1, extra, 84)."""
    parts, count = [], EXTRA[layout]
    for index, level in enumerate(levels):
        found = net.conv(net.block(level, 32, 16, f"model.7.cv4.{index}.0"), 16, count, f"model.7.cv4.{index}.2", 1)
        shape = net.constant(f"extra_shape_{index}", np.array([0, count, -1]))
        parts.append(net.op("Reshape", [found, shape], f"/model.7/cv4/Reshape_{index}"))
    values = net.op("Concat", parts, "/model.7/Concat_extra", axis=2)
    if layout == "pose":
        values = net.op("Sigmoid", [values], "/model.7/Sigmoid_extra")
        scale = np.tile([size, size, 1], KEYPOINTS).reshape(1, -1, 1)
        values = net.op("Mul", [values, net.constant("points", scale.astype(np.float32))], "/model.7/Mul_extra")
    return values


def basis(net, level: str) -> str:
    """The basis of masks: shape (1, coefficients, size / 8, size / 8)."""
    return net.conv(net.block(level, 32, 16, "model.7.proto.cv1"), 16, COEFFICIENTS, "model.7.proto.cv3", 1)


def queries(net, levels: list[str], layout: str, classes: int) -> list[str]:
    """Logits and boxes of every query."""
    columns = []
    for index, level in enumerate(levels):
        shape = net.constant(f"query_shape_{index}", np.array([0, 32, -1]))
        columns.append(net.op("Reshape", [level, shape], f"/decoder/Reshape_{index}"))
    rows = net.op("Concat", columns, "/decoder/Concat", axis=2)
    rows = net.op("Transpose", [rows], "/decoder/Transpose", perm=[0, 2, 1])
    if layout == "dfine":
        rows = _best_rows(net, rows)
    logits = _linear(net, rows, "class_embed", classes + QUERIES[layout], 6)
    boxes = _linear(net, rows, "bbox_embed", 4, 1)
    if layout != "detr":
        reference = net.constant("reference", np.full((1, 1, 4), 0.4, np.float32))
        odds = net.op("Sub", [net.constant("one", np.float32(1)), reference], "/decoder/Sub")
        odds = net.op("Div", [reference, odds], "/decoder/Div")
        odds = net.op(
            "Mul",
            [
                odds,
                net.op(
                    "Exp",
                    [net.op("Mul", [boxes, net.constant("zero", np.float32(0))], "/decoder/Zero")],
                    "/decoder/Exp",
                ),
            ],
            "/decoder/Odds",
        )
        boxes = net.op("Add", [boxes, net.op("Log", [odds], "/decoder/Log")], "/decoder/Add")  # fmt: skip
    return [logits, net.op("Sigmoid", [boxes], "/decoder/Sigmoid")]


def selected_boxes(net, boxes: str, logits: str) -> list[str]:
    """Boxes, labels and scores as torchvision's SSD puts them out: softmax with a background, suppressed."""
    rows = net.op("Transpose", [logits], "/head/Transpose", perm=[0, 2, 1])
    background = net.op("ReduceMean", [rows], "/head/ReduceMean", axes=[2])
    scores = net.op("Softmax", [net.op("Concat", [background, rows], "/head/Concat", axis=2)], "/head/Softmax", axis=2)
    scores = net.op("Transpose", [scores], "/head/Transpose_1", perm=[0, 2, 1])
    bounds = [net.constant(name, np.array([value])) for name, value in (("from", 1), ("to", 99), ("axis", 1))]
    scores = net.op("Slice", [scores, *bounds], "/head/Slice")
    corners = net.op("Transpose", [boxes], "/head/Transpose_2", perm=[0, 2, 1])
    limits = [net.constant("most", np.array([20])), net.constant("iou", np.array([0.6], np.float32)),
              net.constant("floor", np.array([0.02], np.float32))]  # fmt: skip
    found = net.op("NonMaxSuppression", [corners, scores, *limits], "/head/NonMaxSuppression")
    label, anchor = (net.op("Gather", [found, net.constant(f"column_{i}", np.array(i))], f"/head/Column_{i}", axis=1)
                     for i in (1, 2))  # fmt: skip
    last = net.constant("last", np.array([-1]))
    pairs = [net.op("Unsqueeze", [part, last], f"/head/Unsqueeze_{i}") for i, part in enumerate((label, anchor))]
    pair = net.op("Concat", pairs, "/head/Concat_1", axis=1)
    first = net.constant("first", np.array([0]))
    chosen = net.op("Gather", [net.op("Squeeze", [corners, first], "/head/Squeeze"), anchor], "/head/Boxes", axis=0)
    score = net.op("GatherND", [net.op("Squeeze", [scores, first], "/head/Squeeze_1"), pair], "/head/Scores")
    return [chosen, net.op("Add", [label, net.constant("behind", np.array(1))], "/head/Labels"), score]


def _best_rows(net, rows: str, count: int = 40) -> str:
    """The best queries, as RT-DETR selects them from its encoder."""
    score = net.op("ReduceMax", [rows], "/encoder/ReduceMax", axes=[2], keepdims=0)
    _, index = net.op("TopK", [score, net.constant("k", np.array([count]))], "/encoder/TopK", outputs=2, axis=1)
    index = net.op("Unsqueeze", [index, net.constant("inner", np.array([-1]))], "/encoder/Unsqueeze")
    index = net.op("Expand", [index, net.constant("width", np.array([1, 1, 32]))], "/encoder/Expand")
    return net.op("GatherElements", [rows, index], "/encoder/GatherElements", axis=1)


def _linear(net, rows: str, name: str, count: int, gain: float) -> str:
    weight = net.random.normal(0, gain / np.sqrt(32), (32, count)).astype(np.float32)
    found = net.op("MatMul", [rows, net.constant(f"{name}.weight", weight)], f"/{name}/MatMul")
    return net.op("Add", [found, net.constant(f"{name}.bias", np.zeros(count, np.float32))], f"/{name}/Add")


def output_types(layout: str) -> list[int]:
    """Element type of each output."""
    if layout == "torchvision":
        return [TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT]
    return [TensorProto.FLOAT] * (2 if layout in QUERIES or layout == "segment" else 1)
