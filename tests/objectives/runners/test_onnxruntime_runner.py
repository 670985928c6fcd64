"""What ONNX Runtime refuses only when a model runs, or would silently do on another device."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from objectives.devices.gpu import find_gpu
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner, RuntimeUnavailable
from search_spaces.errors import InputError


def test_without_a_gpu_the_cuda_runtime_is_refused_instead_of_run_on_the_cpu(tmp_path: Path) -> None:
    try:
        find_gpu(0)
        pytest.skip("this machine has a GPU")
    except RuntimeUnavailable:
        pass
    relu = helper.make_node("Relu", ["images"], ["output"], name="relu")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("images", "output")]
    graph = helper.make_graph([relu], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with (
        pytest.raises(RuntimeUnavailable, match=r"^onnxruntime-cuda: .*"),
        OnnxRuntimeRunner(tmp_path / "m.onnx", cuda=True),
    ):
        pass


def test_a_conv_of_other_channels_than_its_input_is_named_in_one_line(tmp_path: Path) -> None:
    """As `onnx:322` of the fuzzer with seed 7: nothing is wrong until the input's channels are known."""
    weight = numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "weight")
    conv = helper.make_node("Conv", ["images", "weight"], ["output"], name="conv")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, "channels", 8, 8])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    graph = helper.make_graph([conv], "g", [images], [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with OnnxRuntimeRunner(tmp_path / "m.onnx") as runner:
        assert runner.infer(np.zeros((1, 4, 8, 8), np.float32))[0].shape == (1, 2, 8, 8)
        with pytest.raises(InputError, match=r"^ONNX Runtime cannot run the model: .*Conv") as caught:
            runner.infer(np.zeros((1, 3, 8, 8), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("known", [True, False])
def test_positions_in_float64_are_constants_and_what_depends_on_the_image_is_refused(
    tmp_path: Path, known: bool
) -> None:
    """As D-FINE embeds positions; ONNX Runtime has no Atan of float64 (1.24: nor Cos)."""
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "three"], ["width"], name="width"),
        helper.make_node("Range", ["zero", "width", "one"], ["columns"], name="columns"),
        helper.make_node("Cast", ["columns" if known else "images"], ["wide"], name="wide", to=TensorProto.DOUBLE),
        helper.make_node("Atan", ["wide"], ["waves"], name="waves"),
        helper.make_node("Cast", ["waves"], ["narrow"], name="narrow", to=TensorProto.FLOAT),
        helper.make_node("Add", ["images", "narrow"], ["output"], name="add"),
    ]
    arrays = {"three": np.array(3), "zero": np.array(0), "one": np.array(1)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("images", "output")]
    constants = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    if not known:
        with (
            pytest.raises(InputError, match=r"^ONNX Runtime cannot load the model: .*Atan"),
            OnnxRuntimeRunner(tmp_path / "m.onnx"),
        ):
            pass
        return
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    with OnnxRuntimeRunner(tmp_path / "m.onnx") as runner:
        np.testing.assert_allclose(runner.infer(image)[0], image + np.arctan(np.arange(8.0)), atol=1e-6)
