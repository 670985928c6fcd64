"""A model that is read as another family's is told so by what its outputs hold on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scene_detectors import scene_detector, scenes

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.plausibility import check_model, check_reading, other_pixels, unsure
from objectives.tasks.detection.predict import predict
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

SIDE = 64


def _images(folder: Path, detector: Detector, fit: str = "centred") -> PreprocessedImages:
    paths = sorted(scenes(folder / fit, fit)[0].iterdir())
    records = hash_files([ImageRecord(i, path) for i, path in enumerate(paths)], folder)
    return PreprocessedImages.build(records, detector.preprocessing, folder / "cache")


def _putting_out(path: Path, rows: np.ndarray) -> ModelGraph:
    """A model that puts out chosen rows (1, k, columns), whatever the image; what it does to them shows nothing."""
    weight = np.random.default_rng(0).normal(0, 0.1, (2, 3, 3, 3)).astype(np.float32)
    constants = {"weight": weight, "nothing": np.zeros(1, np.float32), "rows": rows.astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["seen"], "stem", pads=[1] * 4),
        helper.make_node("ReduceMean", ["seen"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chosen",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, rows.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return ModelGraph(path)


def _selected(count: int = 30) -> np.ndarray:
    """Rows of an end-to-end head: corners in pixels, score, class."""
    random = np.random.default_rng(1)
    low = random.uniform(0, 30, (count, 2))
    high = low + random.uniform(5, 30, (count, 2))
    return np.concatenate([low, high, random.uniform(0.3, 0.9, (count, 1)), random.integers(0, 3, (count, 1))], 1)[None]


def _centred(rows: np.ndarray) -> np.ndarray:
    low, high = rows[..., :2], rows[..., 2:4]
    return np.concatenate([(low + high) / 2, high - low, rows[..., 4:]], -1)


def _wrong(kind: str) -> np.ndarray:
    rows = _selected()
    if kind == "shares":
        return np.concatenate([_centred(rows)[..., :4] / SIDE, rows[..., 4:]], -1)
    if kind == "centres":
        return _centred(np.concatenate([rows[..., :2] + 30, rows[..., 2:4] + 30, rows[..., 4:]], -1))
    if kind == "logits":
        return np.concatenate([rows[..., :4], rows[..., 4:5] * 9, rows[..., 5:]], -1)
    assert kind == "swapped"
    return rows[..., [0, 1, 2, 3, 5, 4]] + [0, 0, 0, 0, 0.01, 0]


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("shares", r"lie within 0\.\.1, up to .* 64 x 64 input; give --head rtdetr \(model\.head\)"),
        ("centres", r"end before they begin, as centre, width, height read as corners do; no known head"),
        ("logits", r"its scores reach 7\.\d+, and probabilities do not"),
        ("swapped", r"its scores reach 2\.01|its classes are no whole numbers"),
    ],
)
def test_what_contradicts_a_head_is_told_in_one_line(tmp_path: Path, kind: str, seen: str) -> None:
    graph = _putting_out(tmp_path / "m.onnx", _wrong(kind))
    detector = recognise(graph, classes=["a", "b", "c"])
    assert detector.name == "end_to_end"
    with pytest.raises(InputError, match=seen) as raised:
        check_model(graph, detector, _images(tmp_path, detector))
    assert "\n" not in str(raised.value) and "read as 'end_to_end'" in str(raised.value)


def test_what_holds_is_let_through(tmp_path: Path) -> None:
    graph = _putting_out(tmp_path / "m.onnx", _selected())
    detector = recognise(graph)
    check_model(graph, detector, _images(tmp_path, detector))
    with OnnxRuntimeRunner(graph.path) as runner:
        assert not unsure(predict(runner, _images(tmp_path, detector), detector))


def test_pixels_read_as_shares_are_told(tmp_path: Path) -> None:
    graph = _putting_out(tmp_path / "m.onnx", _centred(_selected()))
    detector = recognise(graph, head="rtdetr", classes=["a", "b", "c"])
    with pytest.raises(InputError, match="lie far outside of the 64 x 64 input"):
        check_model(graph, detector, _images(tmp_path, detector))


@pytest.mark.parametrize("layout", ["yolox", "yolox_decoded"])
def test_a_model_of_the_other_range_is_told_so(tmp_path: Path, layout: str) -> None:
    """YOLOX's outputs, read as those of a model that takes 0..1: nothing is sure there, and all of it in 0..255."""
    graph = ModelGraph(scene_detector(tmp_path / "m.onnx", layout))
    right = recognise(graph)
    wrong = recognise(graph, head="yolov5") if layout == "yolox_decoded" else None
    with OnnxRuntimeRunner(graph.path) as runner:
        assert other_pixels(right, runner, _images(tmp_path, right, "top_left")) == ""
        if wrong is not None:
            images = _images(tmp_path, wrong)
            check_reading(graph, wrong, runner, images)
            assert unsure(predict(runner, images, wrong))
            told = other_pixels(wrong, runner, images)
            assert "with pixels in 0..1, but one is 1.00 with pixels in 0..255" in told and "\n" not in told
