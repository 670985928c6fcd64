"""Ultralytics' own exports with quantize=8: what it is given, and what it gives."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from tiny_detectors import write_images

from objectives.tasks.detection.data.image_files import ImageRecord, read_image
from objectives.tasks.detection.detector import recognise
from objectives.torch_models.packages import SAFE_SETTINGS
from objectives.torch_models.yolo_export import write_data_yaml, yolo_export
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

os.environ.update(SAFE_SETTINGS)


def records(folder: Path, count: int = 3) -> list[ImageRecord]:
    return [ImageRecord(place, path) for place, path in enumerate(write_images(folder, count))]


def test_the_data_set_holds_the_very_pixels_in_order(tmp_path: Path) -> None:
    given = records(tmp_path / "in")[::-1]
    path = write_data_yaml(given, ["cat", "Größe: 2"], tmp_path / "out")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["names"] == {0: "cat", 1: "Größe: 2"} and content["val"] == content["train"] == "images"
    written = sorted((path.parent / content["val"]).iterdir())
    assert len(written) == len(given)
    for record, copy in zip(given, written, strict=True):
        np.testing.assert_array_equal(read_image(copy), read_image(record.path))
    assert not (tmp_path / "in").with_suffix(".cache").exists()


@pytest.mark.parametrize(("size", "word"), [((9, 30), "30x9 pixels"), (None, "cannot be read")])
def test_what_ultralytics_would_skip_is_an_error(tmp_path: Path, size: tuple[int, int] | None, word: str) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(b"no image" if size is None else cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1].tobytes())
    with pytest.raises(InputError, match=word):
        write_data_yaml([ImageRecord(0, path)], ["cat"], tmp_path / "out")


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize(("architecture", "head"), [("yolov8n.yaml", "scores"), ("yolov10n.yaml", "end_to_end")])
def test_int8_takes_ranges_from_the_images(tmp_path: Path, architecture: str, head: str) -> None:
    from objectives.torch_models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(_plain(tmp_path, architecture))
    given = records(tmp_path / "in")
    found = yolo_export(checkpoint, tmp_path / "out", (64, 96), head == "end_to_end", given)
    contract = recognise(ModelGraph(found.model, allow_quantized=True))
    assert (contract.name, contract.image_size) == (head, (64, 96))
    assert operators(found.model).count("QuantizeLinear") > 50
    assert "quantize=8" in found.command and str(tmp_path) not in found.command
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == sorted(record.path.name for record in given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "in", "out"]


def test_a_checkpoint_of_qat_keeps_its_ranges(tmp_path: Path) -> None:
    from objectives.torch_models.checkpoint import load_checkpoint, load_qat_checkpoint

    path = _trained_quantized(tmp_path)
    with pytest.raises(InputError, match=r"quantizers in it; .*ultralytics-qat:"):
        load_checkpoint(path)
    found = yolo_export(load_qat_checkpoint(path), tmp_path / "out", (64, 64), False)
    kinds = operators(found.model)
    assert 50 < kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear")
    assert recognise(ModelGraph(found.model, allow_quantized=True)).name == "scores"


def test_a_state_that_does_more_than_quantize_is_refused(tmp_path: Path) -> None:
    from objectives.torch_models.checkpoint import load_qat_checkpoint

    with pytest.raises(InputError, match="holds no quantizers; give a checkpoint of `yolo train quantize=8`"):
        load_qat_checkpoint(_plain(tmp_path, "yolov8n.yaml"))
    path = _trained_quantized(tmp_path, extra="kd_loss")
    with pytest.raises(InputError, match=r"refused: its ModelOpt state asks for kd_loss"):
        load_qat_checkpoint(path)


def _plain(folder: Path, architecture: str) -> Path:
    """An untrained detector, saved as Ultralytics saves one."""
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="the torch extra is not installed")
    torch.manual_seed(0)
    module = tasks.DetectionModel(architecture, nc=3, verbose=False)
    module.names = {index: f"class{index}" for index in range(3)}
    torch.save({"model": module.half(), "ema": None, "train_args": {"task": "detect", "imgsz": 64}}, folder / "a.pt")
    return folder / "a.pt"


def _trained_quantized(folder: Path, extra: str = "") -> Path:
    """A detector with quantizers and ranges, saved as Ultralytics' trainer saves it; the training itself is left out.

    Args:
        folder: Where.
        extra: A further mode of ModelOpt's that its state asks for.
    """
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="the torch extra is not installed")
    pytest.importorskip("modelopt.torch.quantization", reason="the torch extra is not installed")
    tools = pytest.importorskip("ultralytics.utils.torch_utils")
    if not hasattr(tools, "prepare_qat"):
        pytest.skip("this Ultralytics has no quantization-aware training")
    torch.manual_seed(0)
    module = tasks.DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    module.names = {index: f"class{index}" for index in range(3)}
    module = tools.prepare_qat(module, [torch.rand(2, 3, 64, 64)], lambda batch: batch, batches=1)
    state = tools.qat_state(module)
    tools.strip_qat(module)
    if extra:
        state["modelopt"]["modelopt_state_dict"].append((extra, {"config": {}, "metadata": {}}))
    content = {"model": None, "ema": module.half(), "modelopt": state, "train_args": {"task": "detect", "imgsz": 64}}
    torch.save(content, folder / "qat.pt")
    return folder / "qat.pt"
