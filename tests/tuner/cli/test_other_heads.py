"""Commands on detectors of other families: fed as their family wants it, read rightly, or refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scene_detectors import plugin_detector, scene_detector, scenes

from search_spaces.errors import InputError
from tuner.cli.commands.model import bench, detect, evaluate
from tuner.cli.commands.scheme import materialize


def _score(capture: pytest.CaptureFixture[str], model: Path, images: Path, labels: Path, head: str | None) -> float:
    capture.readouterr()
    evaluate(model, images=images, annotations=labels, head=head, as_json=True)
    return float(json.loads(capture.readouterr().out)["map_50_95"])


@pytest.mark.parametrize(
    ("layout", "fit", "head", "greatest"),
    [
        ("yolox", "top_left", None, 255.0),
        ("yolox_decoded", "top_left", None, 255.0),
        ("yolov5", "centred", None, 1.0),
        ("yolov7", "centred", "yolov7", 1.0),
        ("rtdetr_selected", "stretched", None, 1.0),
        ("scores_normalised", "centred", None, 1.0),
        ("nms", "centred", None, 1.0),
    ],
)
def test_is_scored_quantized_timed_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, fit: str, head: str | None, greatest: float
) -> None:
    model, quantized = scene_detector(tmp_path / "m.onnx", layout), tmp_path / "int8.onnx"
    images, labels = scenes(tmp_path / "set", fit)
    assert _score(capsys, model, images, labels, head) == pytest.approx(1.0)
    materialize(model, uniform="int8", calibration=tmp_path / "set" / "calibration.txt", out=quantized, head=head)
    assert _greatest_input(quantized) == pytest.approx(greatest)
    assert _score(capsys, quantized, images, labels, head) > 0.85
    bench(quantized, reference=model, as_json=True)
    assert json.loads(capsys.readouterr().out)["p50_ms"] > 0
    detect(quantized, sorted(images.iterdir())[:1], out=tmp_path / "drawn", reference=model, head=head)
    assert len(list((tmp_path / "drawn").iterdir())) == 1


def _greatest_input(path: Path) -> float:
    """The greatest pixel that the quantized input still tells from a smaller one."""
    model = onnx.load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == model.graph.input[0].name]
    zero = constants[node.input[2]]
    return float((np.iinfo(zero.dtype).max - int(zero)) * constants[node.input[1]])


@pytest.mark.parametrize("domain", ["TRT", ""])
@pytest.mark.parametrize("op", ["EfficientNMS_TRT", "BatchedNMSDynamic_TRT"])
def test_a_plugin_is_quantized_for_its_runtime_and_refused_by_others(tmp_path: Path, op: str, domain: str) -> None:
    model = plugin_detector(tmp_path / "m.onnx", op, domain)
    images, labels = scenes(tmp_path / "set", "centred")
    calibration, out = tmp_path / "set" / "calibration.txt", tmp_path / "int8.onnx"
    materialize(model, uniform="int8", calibration=calibration, out=out, runtime="tensorrt", version="8.6")
    assert [node.op_type for node in onnx.load(out).graph.node].count(op) == 1
    for runtime in ("onnxruntime-cpu", "tensorrt-rtx"):
        with pytest.raises(InputError, match=rf"holds {op}, which .* does not have; export without NMS"):
            materialize(model, uniform="int8", calibration=calibration, out=tmp_path / "no.onnx", runtime=runtime)
    with pytest.raises(InputError, match=rf"m\.onnx: holds {op}, which ONNX Runtime does not have; export without NMS"):
        evaluate(model, images=images, annotations=labels)
    with pytest.raises(InputError, match="export without NMS"):
        bench(model)
    assert not (tmp_path / "no.onnx").exists()


def test_a_box_beyond_all_numbers_is_the_whole_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A logarithm of a size may leave float32: the box is cut to the image, and what makes it stays in float."""
    model = scene_detector(tmp_path / "m.onnx", "yolox_huge")
    images, labels = scenes(tmp_path / "set", "top_left")
    assert 0 < _score(capsys, model, images, labels, None) < 1
    out = tmp_path / "int8.onnx"
    materialize(model, uniform="int8", calibration=tmp_path / "set" / "calibration.txt", out=out)
    assert "own outputs are infinite" in capsys.readouterr().err
    assert 0 < _score(capsys, out, images, labels, None) < 1


def test_a_wrong_head_is_refused_with_the_right_one(tmp_path: Path) -> None:
    model = scene_detector(tmp_path / "m.onnx", "scores_normalised", gain=1)
    images, labels = scenes(tmp_path / "set", "centred")
    told = r"read as 'scores', the boxes of .* lie within 0\.\.1.*; give .*--head scores_normalised.* \(model\.head\)"
    with pytest.raises(InputError, match=told):
        evaluate(model, images=images, annotations=labels, head="scores")
    calibration = tmp_path / "set" / "calibration.txt"
    with pytest.raises(InputError, match=told):
        materialize(model, uniform="int8", calibration=calibration, out=tmp_path / "no.onnx", head="scores")
    assert not (tmp_path / "no.onnx").exists()
