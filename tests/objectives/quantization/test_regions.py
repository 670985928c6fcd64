"""Layers that read regions, as a mask head does, on images in which the model finds none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import recover
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.registry import open_runtime, parse_settings
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import get_format
from search_spaces.model_graph import ModelGraph

DARK, BRIGHT = np.zeros((1, 3, 64, 64), np.float32), np.ones((1, 3, 64, 64), np.float32)
DIALECT = open_runtime(parse_settings({})).dialect()


@pytest.fixture
def graph(tmp_path: Path) -> ModelGraph:
    """A model whose second Conv reads the features of bright images alone."""
    draw = np.random.default_rng(0)
    weights = {
        "first": np.abs(draw.normal(size=(8, 3, 3, 3))).astype(np.float32),
        "second": draw.normal(size=(4, 8, 3, 3)).astype(np.float32),
        "limit": np.float32(0.5),
        "rows": np.array([-1, 4]),
    }
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["features"], name="first"),
        helper.make_node("ReduceMax", ["features"], ["peak"], name="peak", axes=[1, 2, 3], keepdims=0),
        helper.make_node("Greater", ["peak", "limit"], ["found"], name="greater"),
        helper.make_node("Compress", ["features", "found"], ["regions"], name="compress", axis=0),
        helper.make_node("Conv", ["regions", "second"], ["inner"], name="second"),
        helper.make_node("ReduceMean", ["inner"], ["mean"], name="mean", axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "rows"], ["boxes"], name="reshape"),
        helper.make_node("ReduceMean", ["boxes"], ["scores"], name="score", axes=[1], keepdims=0),
        helper.make_node("Cast", ["scores"], ["labels"], name="cast", to=7),
    ]
    outputs = [("boxes", 1, [None, 4]), ("labels", 7, [None]), ("scores", 1, [None])]
    made = helper.make_graph(
        nodes,
        "regions",
        [helper.make_tensor_value_info("image", 1, [1, 3, 64, 64])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "m.onnx")
    return ModelGraph(tmp_path / "m.onnx")


def test_one_image_with_a_region_is_enough(graph: ModelGraph) -> None:
    table = calibrate(graph, [DARK, BRIGHT], "max")
    wanted = [(layer, get_format("w4a16")) for layer in graph.quantizable]
    settings = WeightSettings("gptq")
    recovered = recover(graph, lambda: iter([DARK, BRIGHT]), wanted, settings)
    packed = Materializer(graph, table, DIALECT, settings, recovered)
    for fmt, materializer in (("int8", Materializer(graph, table, DIALECT)), ("w4a16", packed)):
        artifact = materializer.materialize(Allocation.uniform(["first", "second"], fmt))
        with OnnxRuntimeRunner(artifact.data) as runner:
            assert [len(runner.infer(image)[0]) for image in (DARK, BRIGHT)] == [0, 1]


def test_images_without_any_are_told(graph: ModelGraph) -> None:
    materializer = Materializer(graph, calibrate(graph, [DARK], "max"), DIALECT)
    with pytest.raises(InputError, match="none of the images reaches tensor 'regions'"):
        materializer.materialize(Allocation.uniform(["first", "second"], "int8"))
    with pytest.raises(InputError, match="none of the images reaches tensor 'regions'"):
        recover(graph, lambda: iter([DARK]), [(graph.quantizable[1], get_format("w4a16"))], WeightSettings("gptq"))
