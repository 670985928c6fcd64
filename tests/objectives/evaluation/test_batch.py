"""Several images per inference: a model exported for one image is widened, and computes the same for each."""

from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _alike(path: Path, batch: int = 4) -> bool:
    """Whether a batch gives what its images give one by one."""
    one, many = ModelGraph(path), ModelGraph(path, batch=batch)
    assert many.input_shape == (batch, *one.input_shape[1:]) and many.digest != one.digest
    images = np.random.default_rng(0).random(many.input_shape, dtype=np.float32)
    with OnnxRuntimeRunner(many.model.SerializeToString()) as wide, OnnxRuntimeRunner(path) as single:
        together = wide.infer(images)
        alone = [single.infer(image[None]) for image in images]
    expected = [np.concatenate(outputs) for outputs in zip(*alone, strict=True)]
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(together, expected, strict=True))


@pytest.mark.parametrize("head", ["end_to_end", "scores", "raw"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_batch_equals_its_images_one_by_one(tmp_path: Path, head: str, dynamic: bool) -> None:
    assert _alike(build_detector(tmp_path / "m.onnx", head, dynamic_batch=dynamic))


@pytest.mark.parametrize("name", ["yolov8n.onnx", "yolov10s.onnx"])
def test_the_same_on_real_detectors(shared_data: Path, name: str) -> None:
    assert _alike(shared_data / "models" / name, 2)


def test_another_fixed_batch_is_refused(tmp_path: Path) -> None:
    import onnx

    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "scores"), batch=3)
    onnx.save(graph.model, tmp_path / "three.onnx")
    assert ModelGraph(tmp_path / "three.onnx", batch=3).input_shape[0] == 3
    with pytest.raises(InputError, match="fixed to 3"):
        ModelGraph(tmp_path / "three.onnx")
