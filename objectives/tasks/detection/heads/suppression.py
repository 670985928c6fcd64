"""Class-aware non-maximum suppression over (box, class) pairs, by ONNX Runtime's own operator."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from objectives.tasks.detection.thresholds import Thresholds

Float = NDArray[np.float32]


def suppress(boxes: Float, scores: Float, thresholds: Thresholds) -> Float:
    """Keeps the best of overlapping boxes of one class; a box may be kept for several classes.

    Args:
        boxes: Shape (k, 4), float32, finite: x1, y1, x2, y2.
        scores: Shape (classes, k), float32.
        thresholds: Confidence, IoU and counts.

    Returns:
        Shape (n, 6): x1, y1, x2, y2, score, class; best first, at most `max_detections`.
    """
    return suppressed(boxes, scores, thresholds)[0]


def suppressed(boxes: Float, scores: Float, thresholds: Thresholds) -> tuple[Float, NDArray[np.intp]]:
    """What `suppress` keeps, and which of the boxes each row is, shape (n,)."""
    floor = thresholds.confidence
    candidates = scores[scores > floor]
    if not candidates.size:
        return np.zeros((0, 6), np.float32), np.zeros(0, np.intp)
    if candidates.size > thresholds.max_candidates:
        floor = float(np.partition(candidates, -thresholds.max_candidates)[-thresholds.max_candidates])
        floor = float(np.nextafter(np.float32(floor), np.float32(-1)))
    feed = {
        "boxes": np.ascontiguousarray(boxes[None]),
        "scores": np.ascontiguousarray(scores[None]),
        # No class can place more than the image may hold, and the best of a class are found first.
        "limit": np.array([thresholds.max_detections], np.int64),
        "iou": np.array([thresholds.iou], np.float32),
        "floor": np.array([floor], np.float32),
    }
    classes, index = _session().run(None, feed)[0][:, 1:].T
    kept = scores[classes, index]
    order = np.argsort(-kept, kind="stable")[: thresholds.max_detections]
    rows = np.empty((len(order), 6), np.float32)
    rows[:, :4], rows[:, 4], rows[:, 5] = boxes[index[order]], kept[order], classes[order]
    return rows, index[order]


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    """One session for the process; `run` may be called from several threads at once."""
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, None, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, None, None]),
        helper.make_tensor_value_info("limit", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("floor", TensorProto.FLOAT, [1]),
    ]
    node = helper.make_node("NonMaxSuppression", [value.name for value in inputs], ["selected"])
    output = helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3])
    graph = helper.make_graph([node], "nms", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
