"""A detector that sees the same boxes in every image, and labels of those boxes in the forms that people's tools write.

Labels that are read rightly score 1; whatever is lost or doubled on the way lowers it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 96
NAMES = ("bolt", "hex nut", "washer")
#: x1, y1, x2, y2 in pixels of a square image, class.
BOXES = ((6, 12, 30, 60, 0), (40, 10, 80, 50, 1), (24, 56, 72, 90, 2), (60, 60, 90, 84, 0))


def known_detector(path: Path, names: object = dict(enumerate(NAMES)), boxes: Sequence[Sequence[int]] = BOXES) -> Path:
    """Writes the detector: rows of an end-to-end head, one per box.

    Args:
        path: Where to.
        names: What the metadata holds, as Python writes it; None for no names.
        boxes: What it sees.
    """
    rows = np.zeros((1, 50, 6), np.float32)
    for index, (*corners, label) in enumerate(boxes):
        rows[0, index] = (*corners, 0.95 - 0.02 * index, label)
    weight = np.random.default_rng(7).normal(0, 0.2, (2, 3, 3, 3)).astype(np.float32)
    constants = {"weight": weight, "nothing": np.zeros(1, np.float32), "rows": rows}
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["seen"], "stem", strides=[2, 2], pads=[1] * 4),
        helper.make_node("ReduceMean", ["seen"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 50, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {"names": str(names)})
    onnx.save(model, path)
    return path


def pictures(folder: Path, count: int = 3) -> list[Path]:
    """Writes square images of noise, none like another."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part {index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    return paths


def box_row(box: Sequence[int]) -> str:
    """``class x y width height``."""
    x1, y1, x2, y2, label = box
    return " ".join(map(str, (label, (x1 + x2) / 2 / SIDE, (y1 + y2) / 2 / SIDE, (x2 - x1) / SIDE, (y2 - y1) / SIDE)))


def polygon_row(box: Sequence[int], points: int = 4) -> str:
    """``class x1 y1 x2 y2 ...`` around a box, beginning at its top right corner."""
    x1, y1, x2, y2, label = box
    corners = [(x2, y1), (x2, y2), (x1, y2), (x1, y1), ((x1 + x2) / 2, y1), (x2, (y1 + y2) / 2)][:points]
    return " ".join(map(str, (label, *(value / SIDE for corner in corners for value in corner))))


def yolo_set(root: Path, images: str = "images/val", labels: str = "labels/val", count: int = 3) -> list[Path]:
    """Writes images with label files of `BOXES`; returns the label files."""
    files = []
    (root / labels).mkdir(parents=True)
    for picture in pictures(root / images, count):
        files.append(root / labels / f"{picture.stem}.txt")
        files[-1].write_text("\n".join(map(box_row, BOXES)))
    return files


def coco_set(folder: Path, count: int = 3, first: int = 1, ids: Sequence[int] = (1, 2, 3)) -> Path:
    """Writes images and a COCO json of `BOXES` beside their folder; returns the json.

    Args:
        folder: Of the images.
        count: How many.
        first: Id of the first image and the first annotation.
        ids: Of the categories, in the order of `NAMES`.
    """
    data: dict[str, list] = {
        "images": [
            {"id": first + i, "file_name": path.name, "width": SIDE, "height": SIDE}
            for i, path in enumerate(pictures(folder, count))
        ],
        "categories": [{"id": number, "name": name} for number, name in zip(ids, NAMES, strict=True)],
        "annotations": [],
    }
    for image in data["images"]:
        for x1, y1, x2, y2, label in BOXES:
            box = [x1, y1, x2 - x1, y2 - y1]
            data["annotations"].append(
                {"id": first + len(data["annotations"]), "image_id": image["id"], "category_id": ids[label],
                 "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    target = folder.parent / "labels.json"
    target.write_text(json.dumps(data))
    return target
