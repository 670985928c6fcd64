"""Detectors of other families that truly see: squares of pure colours, each of one of three classes, in their images.

Each is a few convolutions whose weights are chosen, not trained. It finds every square of its scenes exactly, if images
come as its family wants them (range, order of the colours, place beside the padding) and its outputs are read rightly;
each mistake lowers its mAP from 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CELL = 64, 8
CELLS = SIDE // CELL
NAMES = ("red", "green", "blue")
#: Width and height of the images, and how they come to lie in the input: scale x, y, and the rows above them.
FITS = {
    "centred": ((64, 56), (1.0, 1.0), 4),
    "top_left": ((64, 56), (1.0, 1.0), 0),
    "stretched": ((128, 32), (0.5, 2.0), 0),
}
_ANCHORS = {"yolov5": ((10, 13), (16, 30), (33, 23)), "yolov7": ((12, 16), (19, 36), (40, 28))}


class _Net:
    """Collects nodes and constants."""

    def __init__(self, gain: float, seed: int = 0, dynamic: bool = False) -> None:
        self.dynamic = dynamic
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.gain = gain
        self.random = np.random.default_rng(seed)

    def constant(self, value) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs, outputs: int = 1, **attributes):
        if kind == "Reshape" and self.dynamic:  # the batch is read from what is reshaped, as exporters write it
            batch = self.op("Slice", self.op("Shape", inputs[0]), np.array([0]), np.array([1]))
            inputs = inputs[0], self.op("Concat", self.op("Abs", batch), inputs[1][1:], axis=0)
        names = [f"{kind}_{len(self.nodes)}_{index}" for index in range(outputs)]
        given = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(kind, given, names, name=f"{kind}_{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, weight, bias) -> str:
        """A pointwise convolution with chosen weights."""
        weight = np.asarray(weight, np.float32)[:, :, None, None]
        return self.op("Conv", x, weight, np.asarray(bias, np.float32), kernel_shape=[1, 1])

    def features(self, levels: bool, bgr: bool) -> str:
        """Per cell how much purer than one half its red, green and blue are: (1, 3, 8, 8)."""
        mean = np.zeros((3, 3, CELL, CELL), np.float32)
        for plane in range(3):
            mean[plane, 2 - plane if bgr else plane] = 1 / (CELL * CELL * (255 if levels else 1))
        colours = self.op("Conv", "images", mean, kernel_shape=[CELL, CELL], strides=[CELL, CELL])
        return self.op("LeakyRelu", self.conv(colours, 2 * np.eye(3) - 1, np.full(3, -0.5)), alpha=0.02)

    def classes(self, x: str) -> str:
        return self.conv(x, 4 * self.gain * np.eye(3), np.full(3, -self.gain))

    def boxes(self, x: str, values) -> str:
        """Channels of chosen values, which depend on the image by a hair."""
        spread = self.random.normal(0, 1e-3, (len(values), 3))
        return self.conv(x, spread, values)

    def objectness(self, x: str) -> str:
        return self.conv(x, np.full((1, 3), 4 * self.gain), [-self.gain])


def scene_detector(
    path: Path,
    layout: str,
    *,
    names: bool = True,
    gain: float = 20.0,
    transposed: bool = False,
    dynamic: bool = False,
) -> Path:
    """Writes a detector.

    Args:
        path: Where to.
        layout: A function of this module, without its underscore.
        names: Write class names into the metadata.
        gain: Of all logits; a small one leaves every cell uncertain.
        transposed: Swap the last two axes of the output.
        dynamic: Leave the batch open, and compute shapes by it.
    """
    net = _Net(gain, dynamic=dynamic)
    outputs = globals()[f"_{layout}"](net)
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if transposed:
        outputs = [net.op("Transpose", output, perm=[0, 2, 1]) for output in outputs]
    final = [f"output{index}" for index in range(len(outputs))]
    for name, output in zip(final, outputs, strict=True):
        net.nodes.append(helper.make_node("Identity", [output], [name], name=f"to_{name}"))
    save_net(path, net, [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in final], names)
    return path


def save_net(path: Path, net: _Net, outputs: list[onnx.ValueInfoProto], names: bool, infer: bool = True) -> None:
    """Writes a model of those outputs."""
    batch = "batch" if net.dynamic else 1
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    graph = helper.make_graph(net.nodes, "scene", [image], outputs, net.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if infer:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    if names:
        helper.set_model_props(model, {"names": str(dict(enumerate(NAMES)))})
    onnx.save(model, path)


def scenes(folder: Path, fit: str, count: int = 4) -> tuple[Path, Path]:
    """Writes black images with squares that fill a cell of the input each; returns their folder and a COCO json."""
    (width, height), (across, down), above = FITS[fit]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, boxes = [], []
    for index in range(count):
        random = np.random.default_rng(index)
        picture = np.zeros((height, width, 3), np.uint8)
        places = [(row, column) for row in range(1, CELLS - 1, 2) for column in range(0, CELLS, 2)]
        for place in random.choice(len(places), 5, replace=False):
            row, column = places[place]
            label = int(random.integers(3))
            x, y = int(column * CELL / across), int((row * CELL - above) / down)
            w, h = int(CELL / across), int(CELL / down)
            picture[y : y + h, x : x + w, 2 - label] = 255  # OpenCV writes BGR
            boxes.append({"id": len(boxes) + 1, "image_id": index + 1, "category_id": label + 1,
                          "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        images.append({"id": index + 1, "file_name": f"{index}.png", "width": width, "height": height})
    labels = {"images": images, "annotations": boxes,
              "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]}  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "calibration.txt").write_text("".join(f"images/{index}.png\n" for index in range(count)))
    return folder / "images", folder / "labels.json"


def _rows(net: _Net, x: str, channels: int) -> str:
    """Channels of a grid (1, channels, 8, 8) as rows (1, 64, channels)."""
    return net.op("Transpose", net.op("Reshape", x, np.array([1, channels, -1])), perm=[0, 2, 1])


def _columns(net: _Net, x: str, start: int, stop: int) -> str:
    return net.op("Slice", x, np.array([start]), np.array([stop]), np.array([2]))


def _grid(offset: float = 0.0) -> np.ndarray:
    y, x = np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij")
    return (np.stack([x, y], -1).reshape(1, -1, 2) + offset).astype(np.float32)


def _yolox(net: _Net, box=(0.5, 0.5, 0.0, 0.0)) -> str:
    """Offsets and logarithms, objectness, classes: what YOLOX's exporter writes."""
    x = net.features(levels=True, bgr=True)
    parts = [net.boxes(x, box), *(net.op("Sigmoid", part) for part in (net.objectness(x), net.classes(x)))]
    return _rows(net, net.op("Concat", *parts, axis=1), 8)


def _yolox_decoded(net: _Net) -> str:
    rows = _yolox(net)
    centre = net.op("Mul", net.op("Add", _columns(net, rows, 0, 2), _grid()), np.float32(CELL))
    size = net.op("Mul", net.op("Exp", _columns(net, rows, 2, 4)), np.float32(CELL))
    return net.op("Concat", centre, size, _columns(net, rows, 4, 8), axis=2)


def _yolox_huge(net: _Net) -> str:
    """The size of every seventh cell is infinite."""
    rows = _yolox_decoded(net)
    stretch = np.ones((1, CELLS * CELLS, 1), np.float32)
    stretch[:, ::7] = 90
    size = net.op("Mul", _columns(net, rows, 2, 4), stretch)
    size = net.op("Add", net.op("Exp", net.op("Sub", size, np.float32(CELL))), np.float32(CELL - 1))
    return net.op("Concat", _columns(net, rows, 0, 2), size, _columns(net, rows, 4, 8), axis=2)


def _anchored(net: _Net, family: str) -> str:
    """Three anchors' channels (1, 24, 8, 8), logits; only the first anchor sees anything."""
    x = net.features(levels=False, bgr=False)
    parts = []
    for anchor, (width, height) in enumerate(_ANCHORS[family]):
        sizes = np.sqrt(CELL / np.array([width, height])) / 2
        parts.append(net.boxes(x, [0, 0, *np.log(sizes / (1 - sizes))]))
        silent = np.zeros((1, 3)), [-20.0]
        parts.append(net.conv(x, *silent) if anchor else net.objectness(x))
        parts.append(net.classes(x))
    return net.op("Concat", *parts, axis=1)


def _by_anchor(net: _Net, family: str) -> str:
    five = net.op("Reshape", _anchored(net, family), np.array([1, 3, 8, CELLS, CELLS]))
    return net.op("Transpose", five, perm=[0, 1, 3, 4, 2])


def _yolov5(net: _Net) -> str:
    """Decoded, in the order of operators of YOLOv5's own export."""
    x = net.op("Sigmoid", _by_anchor(net, "yolov5"))
    centre, size, rest = net.op("Split", x, np.array([2, 2, 4]), outputs=3, axis=4)
    places = _grid(-0.5).reshape(1, 1, CELLS, CELLS, 2)
    centre = net.op("Mul", net.op("Add", net.op("Mul", centre, np.float32(2)), places), np.float32(CELL))
    anchors = np.array(_ANCHORS["yolov5"], np.float32).reshape(1, 3, 1, 1, 2)
    size = net.op("Mul", net.op("Pow", net.op("Mul", size, np.float32(2)), np.float32(2)), anchors)
    return net.op("Reshape", net.op("Concat", centre, size, rest, axis=4), np.array([1, -1, 8]))


def _yolov5_levels(net: _Net) -> str:
    return _by_anchor(net, "yolov5")


def _yolov5_planes(net: _Net) -> str:
    return _anchored(net, "yolov5")


def _yolov5_shares(net: _Net) -> str:
    """Rows that have passed their Sigmoid, and nothing else."""
    return net.op("Reshape", net.op("Sigmoid", _by_anchor(net, "yolov5")), np.array([1, -1, 8]))


def _yolov5_logits(net: _Net) -> str:
    """Rows as the last layer makes them."""
    return net.op("Reshape", _by_anchor(net, "yolov5"), np.array([1, -1, 8]))


def _yolov7(net: _Net) -> str:
    return _by_anchor(net, "yolov7")


def _dense(net: _Net, levels: bool = False, x: str = "") -> tuple[str, str]:
    """Boxes (1, 64, 4), centre form in pixels, and class probabilities (1, 64, 3)."""
    x = x or net.features(levels=levels, bgr=False)
    boxes = _rows(net, net.boxes(x, [CELL / 2, CELL / 2, CELL, CELL]), 4)
    corner = np.concatenate([_grid() * CELL, np.zeros((1, CELLS * CELLS, 2), np.float32)], 2)
    return net.op("Add", boxes, corner), _rows(net, net.op("Sigmoid", net.classes(x)), 3)


def _yolov6(net: _Net) -> str:
    """Objectness that is always 1."""
    boxes, classes = _dense(net)
    return net.op("Concat", boxes, np.ones((1, CELLS * CELLS, 1), np.float32), classes, axis=2)


def _divided(net: _Net) -> str:
    """YOLOv8's outputs of a graph that divides by 255 itself."""
    image = net.op("Div", "images", np.float32(255))
    net.nodes[-1].output[0] = "shares"
    features = net.features(levels=False, bgr=False)
    next(node for node in net.nodes if node.op_type == "Conv").input[0] = "shares"
    assert image
    boxes, classes = _dense(net, x=features)
    return net.op("Transpose", net.op("Concat", boxes, classes, axis=2), perm=[0, 2, 1])


def _shares(net: _Net) -> tuple[str, str]:
    """Boxes as shares of the input, behind a Sigmoid, and class probabilities."""
    x = net.features(levels=False, bgr=False)
    centre = (_grid(0.5) * CELL / SIDE).clip(1e-3, 1 - 1e-3)
    share = np.concatenate([centre, np.full((1, CELLS * CELLS, 2), CELL / SIDE, np.float32)], 2)
    encoded = np.log(share / (1 - share)).astype(np.float32)
    boxes = net.op("Sigmoid", net.op("Add", _rows(net, net.boxes(x, [0, 0, 0, 0]), 4), encoded))
    return boxes, _rows(net, net.op("Sigmoid", net.classes(x)), 3)


def _scores_normalised(net: _Net) -> str:
    return net.op("Transpose", net.op("Concat", *_shares(net), axis=2), perm=[0, 2, 1])


def _kept(net: _Net) -> tuple[str, str, str, str]:
    """What ONNX's suppression keeps: (n, 1) numbers of images, (n, 4) corners, (n, 1) scores, (n, 1) classes."""
    boxes, classes = _dense(net)
    centre, size = _columns(net, boxes, 0, 2), net.op("Mul", _columns(net, boxes, 2, 4), np.float32(0.5))
    corners = net.op("Concat", net.op("Sub", centre, size), net.op("Add", centre, size), axis=2)
    scores = net.op("Transpose", classes, perm=[0, 2, 1])
    limits = np.array([20]), np.array([0.5], np.float32), np.array([0.25 if net.gain > 2 else 0.01], np.float32)
    kept = net.op("NonMaxSuppression", corners, scores, *limits)
    image, label, anchor = net.op("Split", kept, np.array([1, 1, 1]), outputs=3, axis=1)
    spot = net.op("Concat", image, label, anchor, axis=1)
    number, label = (net.op("Cast", x, to=TensorProto.FLOAT) for x in (image, label))
    found = net.op("GatherND", corners, net.op("Concat", image, anchor, axis=1))
    score = net.op("Unsqueeze", net.op("GatherND", scores, spot), np.array([1]))
    return number, found, score, label


def _nms(net: _Net) -> str:
    """Filled up with zeros to 100 rows: what Ultralytics puts out."""
    _, boxes, score, label = _kept(net)
    rows = net.op("Concat", boxes, score, label, axis=1)
    have = net.op("Slice", net.op("Shape", rows), np.array([0]), np.array([1]))
    pads = net.op("Concat", np.array([0, 0]), net.op("Sub", np.array([100]), have), np.array([0]), axis=0)
    return net.op("Reshape", net.op("Pad", rows, pads), np.array([1, 100, 6]))


def _nms_numbered(net: _Net) -> str:
    """As YOLOv7 exports for ONNX Runtime."""
    number, boxes, score, label = _kept(net)
    return net.op("Concat", number, boxes, label, score, axis=1)


def plugin_detector(
    path: Path, op: str = "EfficientNMS_TRT", domain: str = "TRT", names: bool = True, dynamic: bool = False
) -> Path:
    """Writes a detector that ends in a plugin of TensorRT.

    Args:
        path: Where to.
        op: The plugin; those other than EfficientNMS_TRT take boxes (1, 64, 1, 4) of corners.
        domain: Under which its node is written.
        names: Write class names into the metadata.
        dynamic: Leave the batch open, and compute shapes by it.
    """
    net = _Net(20.0, dynamic=dynamic)
    boxes, classes = _dense(net)
    centre = op == "EfficientNMS_TRT"
    if not centre:
        half = net.op("Mul", _columns(net, boxes, 2, 4), np.float32(0.5))
        corners = [net.op(kind, _columns(net, boxes, 0, 2), half) for kind in ("Sub", "Add")]
        boxes = net.op("Unsqueeze", net.op("Concat", *corners, axis=2), np.array([2]))
    roles = ["num_dets", "det_boxes", "det_scores", "det_classes"]
    options = {"score_activation": 0, "box_coding": 1} if centre else {"shareLocation": 1}
    net.nodes.append(helper.make_node(op, [boxes, classes], roles, name="plugin", domain=domain, **options))
    kinds = [
        TensorProto.INT32,
        TensorProto.FLOAT,
        TensorProto.FLOAT,
        TensorProto.INT32 if centre else TensorProto.FLOAT,
    ]
    batch = "batch" if dynamic else 1
    shapes = [[batch, 1], [batch, 20, 4], [batch, 20], [batch, 20]]
    outputs = [helper.make_tensor_value_info(*each) for each in zip(roles, kinds, shapes, strict=True)]
    save_net(path, net, outputs, names, infer=False)
    return path


def _queries(net: _Net) -> tuple[str, str]:
    """The 24 cells that are most certain of a class."""
    boxes, classes = _shares(net)
    best = net.op("ReduceMax", classes, axes=[2], keepdims=0)
    _, index = net.op("TopK", best, np.array([24]), outputs=2, axis=1)
    index = net.op("Unsqueeze", index, np.array([2]))
    found = [
        net.op("GatherElements", x, net.op("Expand", index, np.array([1, 24, width])), axis=1)
        for x, width in ((boxes, 4), (classes, 3))
    ]
    return found[0], found[1]


def _rtdetr(net: _Net) -> str:
    return net.op("Concat", *_queries(net), axis=2)


def _rtdetr_selected(net: _Net) -> str:
    """Rows of a box, its best class's score, and that class."""
    boxes, classes = _queries(net)
    score = net.op("ReduceMax", classes, axes=[2], keepdims=1)
    label = net.op("Cast", net.op("ArgMax", classes, axis=2, keepdims=1), to=TensorProto.FLOAT)
    return net.op("Concat", boxes, score, label, axis=2)
