"""Small real detectors with Ultralytics' three head layouts, and image sets that they were born to detect.

The networks have fixed random weights. `write_dataset` labels images with the model's own confident
detections, so that the unquantized model scores close to 1 and every degradation lowers its mAP.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_heads import EXTRA, KEYPOINTS, QUERIES, TASKS, basis, extra_values, output_types, queries, selected_boxes

from objectives.evaluation.settings import EvaluatorSettings
from objectives.quantization.calibration import calibrate
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.registry import parse_settings
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph

NAMES = ("apple", "boat", "cat", "dog", "eel")
STRIDES = (8, 16, 32)
REG_MAX = 16


class _Net:
    """Collects the nodes and weights of one model."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def constant(self, name: str, value) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str, outputs: int = 1, **attributes):
        names = [f"{name}_output_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, cin: int, cout: int, name: str, kernel: int = 3, stride: int = 1, gain=1.4, bias=0.0) -> str:
        spread = gain / np.sqrt(cin * kernel * kernel)
        weight = self.random.normal(0, spread, (cout, cin, kernel, kernel)).astype(np.float32)
        inputs = [x, self.constant(f"{name}.weight", weight)]
        inputs.append(self.constant(f"{name}.bias", np.full(cout, bias, np.float32)))
        pads = [kernel // 2] * 4
        return self.op("Conv", inputs, f"/{name.replace('.', '/')}/Conv", kernel_shape=[kernel] * 2,
                       strides=[stride] * 2, pads=pads)  # fmt: skip

    def block(self, x: str, cin: int, cout: int, name: str, stride: int = 1) -> str:
        y = self.conv(x, cin, cout, f"{name}.conv", stride=stride)
        gate = self.op("Sigmoid", [y], f"/{name.replace('.', '/')}/act/Sigmoid")
        return self.op("Mul", [y, gate], f"/{name.replace('.', '/')}/act/Mul")


def build_detector(
    path: Path,
    layout: str = "scores",
    *,
    classes: int = 3,
    size: int = 64,
    names: bool = True,
    dynamic_batch: bool = False,
    transposed: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a detector of about 84 thousand weights and 19 quantizable Conv layers.

    Args:
        path: File to write.
        layout: ``scores``, ``raw`` or ``end_to_end``; ``segment``, ``pose``, ``oriented``; ``detr``,
            ``deformable_detr``, ``dfine``; ``torchvision``.
        classes: Number of classes, at most 5 where `names`.
        size: Input height and width, a multiple of 32.
        names: Write class names into the metadata, as Ultralytics does.
        dynamic_batch: Leave the batch open.
        transposed: Swap the last two axes of a dense output.
        seed: Of the weights.
    """
    net = _Net(seed)
    x = net.block("images", 3, 16, "model.0", 2)
    x = net.block(x, 16, 24, "model.1", 2)
    inner = net.block(x, 24, 24, "model.2.m.0.cv1")
    x = net.op("Add", [x, inner], "/model.2/m.0/Add")
    levels = [net.block(x, 24, 32, "model.3", 2)]
    levels.append(net.block(levels[0], 32, 32, "model.4", 2))
    deep = net.block(levels[1], 32, 32, "model.5", 2)
    pooled = net.op("MaxPool", [deep], "/model.6/MaxPool", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    joined = net.op("Concat", [deep, pooled], "/model.6/Concat", axis=1)
    levels.append(net.block(joined, 64, 32, "model.6.cv2"))
    bins, logits = _heads(net, levels, classes)
    others: list[str] = []
    if layout in QUERIES:
        dense, *others = queries(net, levels, layout, classes)
    elif layout == "raw":
        dense = net.op("Concat", [bins, logits], "/model.7/Concat_raw", axis=1)
    else:
        boxes = _decoded_boxes(net, bins, size, corners=layout in ("end_to_end", "torchvision"))
        if layout == "torchvision":
            dense, *others = selected_boxes(net, boxes, logits)
        else:
            extra = [extra_values(net, levels, layout, size)] if layout in EXTRA else []
            scores = net.op("Sigmoid", [logits], "/model.7/Sigmoid")
            dense = net.op("Concat", [boxes, scores, *extra], "/model.7/Concat_3", axis=1)
            others = [basis(net, levels[0])] if layout == "segment" else []
    if layout == "end_to_end":
        dense = _selection(net, dense, classes)
    elif transposed:
        dense = net.op("Transpose", [dense], "/model.7/Transpose_out", perm=[0, 2, 1])
    for index, tensor in enumerate([dense, *others]):
        net.nodes.append(helper.make_node("Identity", [tensor], [f"output{index}"], name=f"output{index or ''}"))
    named = NAMES[:classes] if names else ()
    _save(net, path, size, dynamic_batch, named, output_types(layout), TASKS.get(layout))
    return path


def _heads(net: _Net, levels: list[str], classes: int) -> tuple[str, str]:
    bins, logits = [], []
    for index, level in enumerate(levels):
        box = net.block(level, 32, 16, f"model.7.cv2.{index}.0")
        box = net.conv(box, 16, 4 * REG_MAX, f"model.7.cv2.{index}.2", kernel=1, gain=6)
        score = net.block(level, 32, 16, f"model.7.cv3.{index}.0")
        score = net.conv(score, 16, classes, f"model.7.cv3.{index}.2", kernel=1, gain=16, bias=-3.0)
        for parts, tensor, channels in ((bins, box, 4 * REG_MAX), (logits, score, classes)):
            shape = net.constant(f"shape_{tensor}", np.array([0, channels, -1]))
            parts.append(net.op("Reshape", [tensor, shape], f"/model.7/Reshape_{len(net.nodes)}"))
    return net.op("Concat", bins, "/model.7/Concat", axis=2), net.op("Concat", logits, "/model.7/Concat_1", axis=2)


def _decoded_boxes(net: _Net, bins: str, size: int, corners: bool) -> str:
    shape = net.constant("dfl_shape", np.array([0, 4, REG_MAX, -1]))
    y = net.op("Reshape", [bins, shape], "/model.7/dfl/Reshape")
    y = net.op("Transpose", [y], "/model.7/dfl/Transpose", perm=[0, 2, 1, 3])
    y = net.op("Softmax", [y], "/model.7/dfl/Softmax", axis=1)
    ramp = net.constant("model.7.dfl.conv.weight", np.arange(REG_MAX, dtype=np.float32).reshape(1, -1, 1, 1))
    y = net.op("Conv", [y, ramp], "/model.7/dfl/conv/Conv", kernel_shape=[1, 1])
    y = net.op("Reshape", [y, net.constant("dfl_out", np.array([0, 4, -1]))], "/model.7/dfl/Reshape_1")
    first, second = net.op("Split", [y], "/model.7/Split_sides", outputs=2, axis=1)
    centres, steps = [], []
    for stride in STRIDES:
        rows, columns = np.meshgrid(np.arange(size // stride), np.arange(size // stride), indexing="ij")
        centres.append(np.stack([columns.ravel(), rows.ravel()]) + 0.5)
        steps.append(np.full(rows.size, stride))
    points = net.constant("anchors", np.concatenate(centres, 1)[None].astype(np.float32))
    low = net.op("Sub", [points, first], "/model.7/Sub")
    high = net.op("Add", [points, second], "/model.7/Add")
    if not corners:
        total = net.op("Add", [low, high], "/model.7/Add_2")
        centre = net.op("Div", [total, net.constant("two", np.float32(2))], "/model.7/Div")
        low, high = centre, net.op("Sub", [high, low], "/model.7/Sub_1")
    y = net.op("Concat", [low, high], "/model.7/Concat_2", axis=1)
    return net.op("Mul", [y, net.constant("strides", np.concatenate(steps)[None, None].astype(np.float32))],
                  "/model.7/Mul")  # fmt: skip


def _selection(net: _Net, dense: str, classes: int, count: int = 20) -> str:
    """The best (anchor, class) pairs, as YOLOv10 selects them."""
    rows = net.op("Transpose", [dense], "/model.7/Transpose", perm=[0, 2, 1])
    widths = net.constant("widths", np.array([4, classes]))
    boxes, scores = net.op("Split", [rows, widths], "/model.7/Split", outputs=2, axis=-1)
    flat = net.op("Flatten", [scores], "/model.7/Flatten", axis=1)
    k = net.constant("k", np.array([count]))
    best, index = net.op("TopK", [flat, k], "/model.7/TopK", outputs=2, axis=-1)
    number = net.constant("classes", np.array(classes))
    label = net.op("Mod", [index, number], "/model.7/Mod")
    anchor = net.op("Div", [index, number], "/model.7/Div_1")
    last = net.constant("last", np.array([-1]))
    anchor = net.op("Unsqueeze", [anchor, last], "/model.7/Unsqueeze")
    anchor = net.op("Concat", [anchor] * 4, "/model.7/Concat_index", axis=2)
    chosen = net.op("GatherElements", [boxes, anchor], "/model.7/GatherElements", axis=1)
    label = net.op("Cast", [label], "/model.7/Cast", to=TensorProto.FLOAT)
    columns = [net.op("Unsqueeze", [t, last], f"/model.7/Unsqueeze_{i}") for i, t in enumerate((best, label))]
    return net.op("Concat", [chosen, *columns], "/model.7/Concat_4", axis=2)


def _save(
    net: _Net,
    path: Path,
    size: int,
    dynamic_batch: bool,
    names: tuple[str, ...],
    types: list[int],
    task: str | None,
) -> None:
    batch = "batch" if dynamic_batch else 1
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])
    outputs = [helper.make_tensor_value_info(f"output{i}", kind, None) for i, kind in enumerate(types)]
    graph = helper.make_graph(net.nodes, "tiny", [image], outputs, net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    if names:
        entry = {"names": str(dict(enumerate(names))), "imgsz": str([size, size]), "stride": "32"}
        entry |= {"task": task} if task else {}
        entry |= {"kpt_shape": str([KEYPOINTS, 3])} if task == "pose" else {}
        helper.set_model_props(model, entry)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Writes PNG images of different sizes with coloured boxes on a gradient; none equals another."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        height, width = (int(n) for n in random.integers(48, 100, 2))
        ramp = np.linspace(0, 1, width)[None, :, None] * random.integers(40, 200, 3)
        image = np.repeat(ramp, height, 0) + random.normal(0, 6, (height, width, 3))
        for _ in range(int(random.integers(2, 6))):
            x, y = int(random.integers(0, width - 12)), int(random.integers(0, height - 12))
            w, h = (int(n) for n in random.integers(10, 40, 2))
            image[y : y + h, x : x + w] = random.integers(0, 255, 3)
        paths.append(folder / f"{seed:02d}_{index:03d}.png")
        cv2.imwrite(str(paths[-1]), np.clip(image, 0, 255).astype(np.uint8))
    return paths


def write_dataset(
    folder: Path, model: Path, count: int = 8, seed: int = 1, size: tuple[int, int] | None = None
) -> tuple[Path, Path]:
    """Writes images and a COCO json of the model's own confident detections, at `size` where it leaves that open.

    Returns:
        The image folder and the annotation file.
    """
    graph = ModelGraph(model, image_size=size)
    contract = recognise(graph)
    paths = write_images(folder / "images", count, seed)
    records = hash_files([ImageRecord(index + 1, path) for index, path in enumerate(paths)], folder)
    images = PreprocessedImages.build(records, contract.preprocessing, folder / "label_cache")
    with OnnxRuntimeRunner(model) as runner:
        found = predict(runner, images, contract, Thresholds(confidence=0.25, iou=0.5, max_detections=12))
    annotations = []
    for image, rows in zip(found.ids, found.detections, strict=True):
        for x1, y1, x2, y2, _, label in rows.astype(float).tolist():
            if x2 - x1 < 2 or y2 - y1 < 2:
                continue
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": 10 + int(label),
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    data = {
        "images": [
            {"id": r.id, "file_name": r.path.name, "width": p.width, "height": p.height}
            for r, p in zip(records, images.placements, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": 10 + i, "name": NAMES[i]} for i in range(contract.class_count)],
    }
    target = folder / "labels.json"
    target.write_text(json.dumps(data))
    return folder / "images", target


def write_calibration(folder: Path, count: int = 4, seed: int = 9) -> Path:
    """Writes calibration images and their list."""
    paths = write_images(folder / "calibration", count, seed)
    target = folder / "calibration.txt"
    target.write_text("# calibration images\n" + "".join(f"calibration/{path.name}\n" for path in paths))
    return target


def evaluator_settings(folder: Path, graph: ModelGraph, count: int, **choices: Any) -> EvaluatorSettings:
    """What an evaluator needs to score a tiny detector: `count` labelled images, and ranges of three others.

    Args:
        folder: Where all of it goes.
        graph: The detector.
        count: Images that it is scored on.
        choices: Other fields of the settings.
    """
    images, annotations = write_dataset(folder, graph.path, count, size=graph.sized)
    calibration = load_calibration(write_calibration(folder, 3), None)
    contract = recognise(graph)
    cached = PreprocessedImages.build(calibration.images, contract.preprocessing, folder / "cache")
    (folder / "calibration.json").write_text(calibrate(graph, cached.singles(), "max").to_json())
    choices.setdefault("runtime", parse_settings({}))
    return EvaluatorSettings(
        model=graph.path,
        calibration=folder / "calibration.json",
        contract=contract,
        dataset=load_dataset(images, annotations),
        cache=folder / "cache",
        predictions=folder / "predictions",
        **choices,
    )
