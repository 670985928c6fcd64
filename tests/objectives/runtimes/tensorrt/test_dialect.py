"""The graphs that TensorRT reads: packed weights in the form that its parser takes, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import TRT, TRT8
from onnx.reference import ReferenceEvaluator
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, Granularity, NumberSpec
from search_spaces.model_graph import ModelGraph

_BLOCKS = [
    ("nvfp4", Granularity.AUTO),
    ("w4a16", Granularity.AUTO),
    ("w4a16", Granularity.BLOCK),
    ("w8a16", Granularity.BLOCK),
]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("model") / "m.onnx", "scores"))


@pytest.fixture(scope="module")
def image(graph: ModelGraph) -> np.ndarray:
    return np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)


@pytest.fixture(scope="module")
def table(graph: ModelGraph, image: np.ndarray) -> CalibrationTable:
    return calibrate(graph, [image], "max")


def _settings(granularity: Granularity) -> WeightSettings:
    return WeightSettings("rtn", granularity, block_size=8)


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable if not layer.lacks(FORMATS[fmt])], fmt)


@pytest.mark.parametrize(("fmt", "granularity"), _BLOCKS)
def test_blocked_weights_stay_packed_and_block_the_second_last_axis(
    graph: ModelGraph, table: CalibrationTable, fmt: str, granularity: Granularity
) -> None:
    artifact = Materializer(graph, table, TRT, _settings(granularity)).materialize(_uniform(graph, fmt))
    assert artifact.build is None and artifact.folded == ()
    artifact.check()
    model = onnx.load_model_from_string(artifact.data)
    number = FORMATS[fmt].weight
    assert model.opset_import[0].version == max(21, number.opset)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    made = {node.output[0]: node for node in model.graph.node}
    blocked = [n for n in model.graph.node if any(a.name == "block_size" and a.i for a in n.attribute)]
    assert len(blocked) > 3
    for node in blocked:
        axis = next(entry.i for entry in node.attribute if entry.name == "axis")
        scale = node.input[1]
        if number.block_scale is not None and number.block_scale.quantized:
            levels = [tensors[name] for name in made[scale].input]
            assert levels[0].data_type == onnx.TensorProto.FLOAT8E4M3FN and not levels[1].dims
            scale = levels[0].name
        codes, scales = shapes[node.input[0]], shapes[scale]
        assert tensors[node.input[0]].data_type == onnx.TensorProto.DataType.Value(number.onnx)
        assert axis >= len(codes) - 2
        assert codes[axis] == (number.block_size or 8) * scales[axis]


@pytest.mark.parametrize(("fmt", "granularity"), _BLOCKS)
def test_it_computes_what_the_form_for_onnx_runtime_computes(
    graph: ModelGraph, table: CalibrationTable, image: np.ndarray, fmt: str, granularity: Granularity
) -> None:
    outputs = []
    for dialect in (replace(TRT, half_graph=False), ONNXRUNTIME):
        made = Materializer(graph, table, dialect, _settings(granularity)).materialize(_uniform(graph, fmt))
        model = onnx.load_model_from_string(made.data)
        outputs.append(np.asarray(ReferenceEvaluator(model).run(None, {graph.input: image})[0], np.float64))
    assert np.abs(outputs[0] - outputs[1]).max() <= 1e-3 * np.abs(outputs[1]).max()


@pytest.mark.parametrize("fmt", ["w8a8f", "w4a8"])
def test_weights_unlike_their_inputs_are_refused_by_name(graph: ModelGraph, table: CalibrationTable, fmt: str) -> None:
    for dialect in (TRT, TRT8):
        with pytest.raises(InputError, match=f"scheme: {fmt} of layer .*choose"):
            Materializer(graph, table, dialect, _settings(Granularity.AUTO)).materialize(_uniform(graph, fmt))


def test_inputs_without_a_kernel_are_refused_by_name(
    graph: ModelGraph, table: CalibrationTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = NumberSpec("int16", "INT16", 16, -32767.0, 32767.0, opset=21)
    monkeypatch.setitem(FORMATS, "w16a16i", Format("w16a16i", wide, wide))
    with pytest.raises(InputError, match=r"has int16 inputs, in which TensorRT does not compute; choose int8"):
        Materializer(graph, table, TRT).materialize(_uniform(graph, "w16a16i"))


def test_before_tensorrt_10_the_builder_gets_them_unpacked(graph: ModelGraph, table: CalibrationTable) -> None:
    artifact = Materializer(graph, table, TRT8, _settings(Granularity.AUTO)).materialize(_uniform(graph, "w4a16"))
    assert artifact.build is not None and len(artifact.folded) == len(graph.quantizable)
    kinds = {tensor.data_type for tensor in onnx.load_model_from_string(artifact.build).graph.initializer}
    assert onnx.TensorProto.INT4 not in kinds


def test_the_packed_file_is_smaller(graph: ModelGraph, table: CalibrationTable, tmp_path: Path) -> None:
    made = {f: Materializer(graph, table, TRT, _settings(Granularity.AUTO)) for f in ("fp16", "w8a16", "w4a16")}
    sizes = [len(materializer.materialize(_uniform(graph, name)).data) for name, materializer in made.items()]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_layer_whose_channels_are_no_whole_blocks_is_refused_by_name(
    graph: ModelGraph, table: CalibrationTable
) -> None:
    [stem] = [layer.name for layer in graph.quantizable if layer.weight_shape[1] == 3]
    for dialect in (TRT, TRT8, ONNXRUNTIME):
        with pytest.raises(InputError, match=f"layer '{stem}': nvfp4 needs whole blocks of 16 .*, not 3; choose"):
            Materializer(graph, table, dialect).materialize(Allocation.uniform([stem], "nvfp4"))
