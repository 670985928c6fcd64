"""GPTQ against plain rounding on random layers of every kind, and a model's weights through file and artifact."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS, ORT, TRT8
from hypothesis import given, settings
from hypothesis import strategies as st
from output_error import output_error
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.columns import Geometry, as_rows, from_rows, read_columns, read_geometry
from objectives.quantization.gptq import Activity
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import (
    Recovered,
    load_recovered,
    recover,
    save_recovered,
    scales_as_rows,
    scales_from_rows,
)
from objectives.quantization.stages import Pairs, lowest, split_stages, with_weights
from objectives.quantization.weights import QuantizedWeight, WeightSettings, quantize_weight, weight_key
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, Granularity, Number
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph

W4 = FORMATS["w4a16"]
KINDS = ("dense", "pointwise", "depthwise", "grouped", "one input channel", "strided", "gemm", "matmul", "left matmul")
TROUBLES = ("none", "dead channel", "constant input", "outlier", "all zero", "dead weight", "tiny", "huge")


def _layer(kind: str, random: np.random.Generator) -> tuple[Layer, onnx.NodeProto]:
    channels, out = int(random.choice([8, 16, 32])), int(random.choice([4, 8, 24]))
    shape, groups, axis, op = (out, channels, 3, 3), 1, 0, "Conv"
    attributes: dict[str, object] = {"pads": [1, 1, 1, 1]}
    if kind == "pointwise":
        shape, attributes = (out, channels, 1, 1), {}
    elif kind == "depthwise":
        shape, groups = (channels, 1, 3, 3), channels
    elif kind == "grouped":
        shape, groups = (16, channels // 4, 3, 3), 4
    elif kind == "one input channel":
        shape, channels = (out, 1, 3, 3), 1
    elif kind == "strided":
        attributes = {"pads": [2, 2, 1, 1], "strides": [2, 1], "dilations": [1, 2]}
    elif kind == "gemm":
        shape, op = (out, channels), "Gemm"
    elif kind == "matmul":
        shape, op, axis = (channels, out), "MatMul", 1
    elif kind == "left matmul":
        shape, op = (out, channels), "MatMul"
    if groups > 1:
        attributes["group"] = groups
    if op != "Conv":
        attributes = {"transB": 1} if op == "Gemm" else {}
    node = onnx.helper.make_node(op, ["x", "w"], ["y"], name="n", **attributes)
    data = (1, channels, 9, 11) if op == "Conv" else (5, 7, channels) if axis or op == "Gemm" else (5, channels, 7)
    return Layer("n", op, "m", "w", shape, groups, axis, "x", "y", data, (), int(np.prod(shape)), 0), node


def _input(layer: Layer, trouble: str, random: np.random.Generator) -> np.ndarray:
    values = np.abs(random.standard_normal(layer.input_shape)).astype(np.float32)
    values += random.standard_normal(layer.input_shape).astype(np.float32) * 0.3
    first = np.s_[:, 0] if layer.op == "Conv" or not (layer.channel_axis or layer.op == "Gemm") else np.s_[..., 0]
    if trouble == "dead channel":
        values[first] = 0
    elif trouble == "constant input":
        values[first] = 3
    elif trouble == "outlier":
        values[first] *= 1e4
    elif trouble == "all zero":
        values[:] = 0
    elif trouble in ("tiny", "huge"):
        values *= 1e-6 if trouble == "tiny" else 1e6
    return values


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=24, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), trouble=st.sampled_from(TROUBLES), centred=st.booleans())
def test_the_output_error_of_a_row_is_never_above_gptqs_or_roundings(
    kind: str, seed: int, trouble: str, centred: bool
) -> None:
    random = np.random.default_rng(seed)
    layer, node = _layer(kind, random)
    weight = random.standard_normal(layer.weight_shape).astype(np.float32)
    if trouble == "dead weight":
        weight[0] = 0
    granularity = (Granularity.BLOCK, Granularity.PER_CHANNEL, Granularity.PER_TENSOR)[seed % 3]
    plain = quantize_weight(weight, layer, W4, WeightSettings(granularity=granularity, block_size=8))
    columns = read_columns(_input(layer, trouble, random), read_geometry(layer, node), 10_000, random)
    assert np.isfinite(columns).all()
    shifted = columns - columns.mean(axis=1, keepdims=True) if centred else columns
    shifted = shifted.astype(np.float64)
    hessian = shifted.transpose(0, 2, 1) @ shifted / shifted.shape[1]
    rows = as_rows(weight, layer)
    scale, sharing = scales_as_rows(plain, layer)
    np.testing.assert_array_equal(scales_from_rows(scale, plain, layer), plain.scale)
    np.testing.assert_array_equal(from_rows(rows, layer), weight)
    steps = sharing.spread(scale.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_array_equal(steps * as_rows(plain.codes, layer), as_rows(plain.dequantized(), layer))
    activity = Activity.of(hessian)
    codes, found = activity.search(rows, scale, sharing, Number.INT4)
    assert codes.shape == rows.shape and (codes == np.rint(codes)).all() and codes.min() >= -8 and codes.max() <= 7
    assert found.shape == scale.shape and np.isfinite(found).all() and (found > 0).all()
    if plain.axis is None:
        np.testing.assert_array_equal(found, scale)
    if plain.scale.dtype == np.float16:
        np.testing.assert_array_equal(found.astype(np.float16), found)
    new = sharing.spread(found.swapaxes(1, 2)).swapaxes(1, 2)
    greedy = activity.feed_back(rows.swapaxes(1, 2), steps.swapaxes(1, 2), Number.INT4).swapaxes(1, 2)
    ours, today, nearest = (
        output_error(values - rows.astype(np.float64), hessian)
        for values in (codes * new, greedy * steps, as_rows(plain.dequantized(), layer))
    )
    # Errors are compared in float32; an input 1e4 times the others is what rounding errors are relative to.
    slack = 1e-6 * output_error(rows, hessian) + 1e-12
    assert np.isfinite(ours).all() and (ours <= 1.01 * np.minimum(today, nearest) + slack).all()


def test_gptq_is_far_better_where_inputs_are_correlated() -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((4000, 12)) @ random.standard_normal((12, 64))  # 64 inputs of rank 12
    hessian = (inputs.T @ inputs / len(inputs))[None]
    weight = random.standard_normal((1, 64, 32)).astype(np.float32)
    step = np.broadcast_to(np.abs(weight).max(axis=1, keepdims=True) / 7, weight.shape).astype(np.float32)
    codes = Activity.of(hessian).feed_back(weight, step, Number.INT4)
    ours, plain = (
        output_error((found * step - weight).swapaxes(1, 2), hessian).sum() for found in (codes, np.rint(weight / step))
    )
    assert ours < 0.3 * plain


@pytest.mark.parametrize("kind", KINDS)
def test_columns_times_rows_is_the_layer(kind: str) -> None:
    random = np.random.default_rng(3)
    layer, node = _layer(kind, random)
    weight = random.standard_normal(layer.weight_shape).astype(np.float32)
    values = random.standard_normal(layer.input_shape).astype(np.float32)
    columns = read_columns(values, read_geometry(layer, node), 10_000, random)
    product = (columns @ as_rows(weight, layer).transpose(0, 2, 1)).transpose(0, 2, 1)  # (groups, rows, positions)
    if layer.op == "Gemm":
        values = values.reshape(-1, values.shape[-1])
    if kind == "left matmul":
        node.input[:] = ["w", "x"]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [onnx.numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    import onnxruntime

    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values})[0]
    channels = layer.weight_shape[layer.channel_axis]
    if layer.op == "Conv":
        expected = expected[0].reshape(channels, -1)
    else:
        moved = expected if kind == "left matmul" else np.moveaxis(expected, -1, -2)
        expected = moved.swapaxes(0, -2).reshape(channels, -1) if moved.ndim == 3 else moved
    np.testing.assert_allclose(product.reshape(channels, -1), expected, rtol=1e-4, atol=1e-4)


def test_same_padding_is_onnx_runtimes() -> None:
    layer = Layer("n", "Conv", "m", "w", (4, 3, 3, 3), 1, 0, "x", "y", (1, 3, 9, 10), (), 108, 0)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="n", auto_pad="SAME_UPPER", strides=[2, 2])
    assert read_geometry(layer, node) == Geometry("x", (3, 3), (2, 2), (1, 1), (1, 0, 1, 1), 1)


class Room:
    def __init__(self, folder: Path) -> None:
        build_detector(folder / "tiny.onnx")
        self.graph = ModelGraph(folder / "tiny.onnx")
        random = np.random.default_rng(0)
        size = self.graph.shapes[self.graph.input][2:]
        self.batches = [random.random((1, 3, *size), dtype=np.float32) for _ in range(6)]
        self.table: CalibrationTable = calibrate(self.graph, self.batches, "max")
        self.settings = WeightSettings("auto", block_size=8)
        self.pairs = [(layer, W4) for layer in self.graph.quantizable if self.settings.recovers(layer, W4)]
        self.found = recover(self.graph, lambda: iter(self.batches), self.pairs, self.settings)
        self.all4 = Allocation.uniform([layer.name for layer in self.graph.quantizable], "w4a16")

    def outputs(self, data: bytes | Path) -> np.ndarray:
        with OnnxRuntimeRunner(data, threads=1) as runner:
            return np.concatenate([runner.infer(image)[0].ravel() for image in self.batches])


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("recovery"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt", "tensorrt-8"])
def test_recovered_weights_reach_every_artifact(room: Room, runtime: str) -> None:
    materializer = Materializer(room.graph, room.table, DIALECTS[runtime], room.settings, room.found)
    artifact = materializer.materialize(room.all4)
    artifact.check()
    named = {
        tensor.name.removesuffix("_half")
        for tensor in onnx.load_model_from_string(artifact.engine_model).graph.initializer
    }
    shifted = [layer.name for layer, _ in room.pairs if next(iter(_entries(room, layer))).shift is not None]
    assert shifted and {f"{name}_bias_corrected" for name in shifted} <= named


def _entries(room: Room, layer: Layer) -> list[Recovered]:
    return [entry for key, entry in room.found.items() if key.split(" ")[0] == layer.name]


def test_the_model_is_closer_than_with_rounding(room: Room) -> None:
    expected = room.outputs(room.graph.path)
    plain = Materializer(room.graph, room.table, ORT, WeightSettings("rtn", block_size=8)).materialize(room.all4)
    ours = Materializer(room.graph, room.table, ORT, room.settings, room.found).materialize(room.all4)
    error = [np.square(room.outputs(found.data) - expected).mean() for found in (ours, plain)]
    assert error[0] < error[1]


def test_weights_survive_their_file(room: Room, tmp_path: Path) -> None:
    data = save_recovered(tmp_path / "weights.npz", room.found)
    again = load_recovered(tmp_path / "weights.npz")
    assert list(again) == list(room.found)
    for key, entry in room.found.items():
        np.testing.assert_array_equal(again[key].weight.dequantized(), entry.weight.dequantized())
        assert isinstance(again[key].weight, QuantizedWeight) and again[key].weight.number is entry.weight.number
    (tmp_path / "broken.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"broken.npz: not a file of recovered weights"):
        load_recovered(tmp_path / "broken.npz")


def test_the_same_images_give_the_same_weights(room: Room) -> None:
    again = recover(room.graph, lambda: iter(room.batches), room.pairs, room.settings)
    for key, entry in room.found.items():
        np.testing.assert_array_equal(again[key].weight.codes, entry.weight.codes)


def test_a_missing_weight_is_no_silent_rounding(room: Room) -> None:
    with pytest.raises(InputError, match=r"weights.method: 'auto' needs calibration images for layer"):
        Materializer(room.graph, room.table, ORT, room.settings).materialize(room.all4)


def test_no_image(room: Room) -> None:
    with pytest.raises(InputError, match="no calibration image"):
        recover(room.graph, lambda: iter(()), room.pairs, room.settings)


def test_a_corrected_bias_takes_up_the_mean_error_of_rounding(room: Room) -> None:
    settings = WeightSettings("bias", block_size=8)
    found = recover(room.graph, lambda: iter(room.batches), room.pairs, settings)
    for layer, fmt in room.pairs:
        weight = room.graph.initializers[layer.weight]
        (entry,) = (value for key, value in found.items() if key.split(" ")[0] == layer.name)
        np.testing.assert_array_equal(entry.weight.codes, quantize_weight(weight, layer, fmt, settings).codes)
    error = []
    for method, recovered in (("bias", found), ("rtn", {})):
        weights = WeightSettings(method, block_size=8)
        data = Materializer(room.graph, room.table, ORT, weights, recovered).materialize(room.all4).data
        error.append(np.square(room.outputs(data) - room.outputs(room.graph.path)).mean())
    assert error[0] < error[1]


@pytest.mark.parametrize(("method", "eight"), [("auto", "rtn"), ("corrected", "bias"), ("gptq", "gptq")])
def test_formats_of_four_and_eight_bits_side_by_side_are_what_each_is_alone(
    room: Room, method: str, eight: str
) -> None:
    settings, int8 = WeightSettings(method, block_size=8), FORMATS["int8"]
    assert [settings.method_for(fmt) for fmt in (W4, int8)] == ["gptq", eight]
    pairs = [(layer, fmt) for layer, _ in room.pairs for fmt in (W4, int8) if settings.recovers(layer, fmt)]
    both = recover(room.graph, lambda: iter(room.batches), pairs, settings)
    alone = dict(room.found)
    if eight != "rtn":
        known = [(layer, int8) for layer, _ in room.pairs]
        alone |= recover(room.graph, lambda: iter(room.batches), known, WeightSettings(eight, block_size=8))
    assert both.keys() == alone.keys() and any(entry.shift is not None for entry in both.values())
    for key, entry in both.items():
        np.testing.assert_array_equal(entry.weight.codes, alone[key].weight.codes)
        np.testing.assert_array_equal(entry.shift, alone[key].shift)


def test_three_bits_are_codes_of_four(room: Room) -> None:
    settings = WeightSettings("gptq", block_size=8)
    three = dataclasses.replace(Number.INT4, name="int3", least=-4.0, largest=3.0)
    pairs = [(layer, Format("w3a16", three, fmt.activation)) for layer, fmt in room.pairs]
    found = recover(room.graph, lambda: iter(room.batches), pairs, settings)
    codes = np.concatenate([entry.weight.codes.ravel() for entry in found.values()])
    assert codes.min() >= -4 and codes.max() == 3


def test_pytorch_recovers_the_same_model(room: Room) -> None:
    pytest.importorskip("torch", reason="needs the torch extra")
    from objectives.quantization import gptq_torch, recovery

    settings = dataclasses.replace(room.settings, device="cpu:0")  # PyTorch's name of the CPU, so that it solves
    assert recovery._maker(settings.device)(1, 2).__class__ is gptq_torch.TorchMoments
    found = recover(room.graph, lambda: iter(room.batches), room.pairs, settings)
    same = [(found[key].weight.codes == entry.weight.codes).mean() for key, entry in room.found.items()]
    assert np.mean(same) > 0.99
    for key, entry in room.found.items():
        if entry.shift is not None and (found[key].weight.codes == entry.weight.codes).all():
            np.testing.assert_allclose(found[key].shift, entry.shift, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stages", [2, 3, 1000])
def test_later_stages_see_the_weights_of_earlier_ones(room: Room, stages: int) -> None:
    sequential = dataclasses.replace(room.settings, sequential=stages)
    found = recover(room.graph, lambda: iter(room.batches), room.pairs, sequential)
    assert list(found) == list(room.found)
    parts = list(split_stages(_unique(room), [node.name for node in room.graph.nodes()], stages))
    assert len(parts) == min(stages, len(room.pairs)) and sum(len(part) for part in parts) == len(room.pairs)
    same = {key: np.array_equal(found[key].weight.codes, room.found[key].weight.codes) for key in found}
    assert all(same[key] for key in parts[0]) and not all(same.values())


def test_the_model_of_the_next_stage_is_the_artifact(room: Room) -> None:
    entries = [
        (pair[0], entry.weight, entry.shift) for pair, entry in zip(room.pairs, room.found.values(), strict=True)
    ]
    model = with_weights(room.graph.model, room.graph.initializers, entries)
    artifact = Materializer(room.graph, room.table, TRT8, room.settings, room.found).materialize(room.all4)
    np.testing.assert_allclose(
        room.outputs(model.SerializeToString()), room.outputs(artifact.engine_model), rtol=1e-4, atol=1e-4
    )


def test_a_layer_is_in_its_lowest_format_when_the_next_stage_is_measured(room: Room) -> None:
    layer = room.pairs[0][0]
    pairs = {"a": (layer, FORMATS["w8a16"]), "b": (layer, W4), "c": (layer, FORMATS["int8"])}
    assert [(key, found.name) for key, found in lowest(pairs)] == [("b", layer.name)]
    assert [set(stage) for stage in split_stages(pairs, [layer.name], 4)] == [{"a", "b", "c"}]


def _unique(room: Room) -> Pairs:
    return {weight_key(layer, fmt, room.settings): (layer, fmt) for layer, fmt in room.pairs}
