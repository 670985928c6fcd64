import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS, ORT
from onnx import TensorProto, numpy_helper
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Granularity
from search_spaces.model_graph import ModelGraph

LAYOUTS = ["end_to_end", "scores", "raw"]


def _images(graph: ModelGraph, count: int = 4) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.random(graph.input_shape, dtype=np.float32) for _ in range(count)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModelGraph, CalibrationTable]]:
    folder = tmp_path_factory.mktemp("m")
    found = {}
    for layout in LAYOUTS:
        graph = ModelGraph(build_detector(folder / f"{layout}.onnx", layout))
        found[layout] = (graph, calibrate(graph, iter(_images(graph)), "max"))
    return found


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable if not layer.lacks(FORMATS[fmt])], fmt)


def _run(model: bytes | Path, image: np.ndarray) -> np.ndarray:
    with OnnxRuntimeRunner(model) as runner:
        return runner.infer(image)[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_uniform_scheme_is_valid_and_the_cpu_runs_it(graphs, layout: str, fmt: str, runtime: str) -> None:
    graph, table = graphs[layout]
    if DIALECTS[runtime].refuses(FORMATS[fmt]):
        pytest.skip("refused by name: tests of its dialect")
    artifact = Materializer(graph, table, DIALECTS[runtime]).materialize(_uniform(graph, fmt))
    artifact.check()
    if runtime == "onnxruntime":
        image = _images(graph)[0]
        found, expected = _run(artifact.data, image), _run(graph.path, image)
        assert found.shape == expected.shape and np.isfinite(found).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_mixes_are_valid_and_run(graphs, layout: str) -> None:
    graph, table = graphs[layout]
    materializer = Materializer(graph, table, ORT)
    draw = np.random.default_rng(1)
    digests = set()
    for _ in range(8):
        chosen = {
            layer.name: str(draw.choice([name for name, fmt in FORMATS.items() if not layer.lacks(fmt)]))
            for layer in graph.quantizable
        }
        artifact = materializer.materialize(Allocation.of(chosen))
        artifact.check()
        assert np.isfinite(_run(artifact.data, _images(graph)[0])).all()
        digests.add(artifact.digest)
    assert len(digests) == 8


def test_more_bits_mean_less_error_on_the_raw_head(graphs) -> None:
    graph, table = graphs["raw"]
    materializer = Materializer(graph, table, ORT)
    image = _images(graph)[0]
    expected = _run(graph.path, image)
    error = {
        fmt: float(np.abs(_run(materializer.materialize(_uniform(graph, fmt)).data, image) - expected).mean())
        for fmt in FORMATS
    }
    assert error["fp16"] < error["w8a16"] < error["int8"] and error["w8a16"] < error["w4a16"]
    assert error["w4a16"] < error["w4a8"] and error["w8a16"] < error["w8a8f"]
    assert error["w8a16"] < error["nvfp4"] < error["w4a8"]
    assert error["int8"] < 0.2 * float(np.abs(expected - expected.mean()).mean())


def test_equal_allocations_give_equal_bytes_and_one_layer_changes_them(graphs) -> None:
    graph, table = graphs["end_to_end"]
    first, second = (
        Materializer(graph, table, ORT),
        Materializer(graph, table, ORT),
    )
    base = _uniform(graph, "int8")
    assert first.materialize(base).digest == second.materialize(base).digest
    changed = {**base.formats, graph.quantizable[3].name: "fp16"}
    assert first.materialize(Allocation.of(changed)).digest != first.materialize(base).digest
    assert first.materialize(base).digest == second.materialize(base).digest  # the cache was not touched


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel", "block"])
def test_the_size_is_what_the_file_stores(graphs, granularity: str) -> None:
    graph, table = graphs["scores"]
    settings = WeightSettings(granularity=Granularity(granularity), block_size=16)
    for runtime, fmt in itertools.product(["onnxruntime", "tensorrt"], ["w8a16", "w4a16", "int8", "fp8", "nvfp4"]):
        allocation = _uniform(graph, fmt)
        artifact = Materializer(graph, table, DIALECTS[runtime], settings).materialize(allocation)
        model = onnx.load_model_from_string(artifact.data)
        names = {layer.weight for layer in graph.quantizable}
        stored = 0
        for tensor in model.graph.initializer:
            base, _, kind = tensor.name.removesuffix("_half").rpartition("_")
            if base in names and kind in ("quantized", "scale"):
                stored += len(tensor.raw_data)
            elif base.removesuffix("_tensor") in names and kind == "scale":
                stored += 4  # float32, which a graph in fp16 holds as a half
        fixed = 2 * sum(layer.parameters for layer in graph.layers if layer.name not in allocation.formats)
        assert artifact.size.weight_bytes == stored + fixed
        assert artifact.size.average_weight_bits == pytest.approx(
            8 * artifact.size.weight_bytes / artifact.size.parameters
        )


def test_int4_weights_are_packed_two_to_a_byte(graphs) -> None:
    graph, table = graphs["scores"]
    materializer = Materializer(graph, table, ORT)
    model = onnx.load_model_from_string(materializer.materialize(_uniform(graph, "w4a16")).data)
    layer = graph.quantizable[5]
    tensor = next(t for t in model.graph.initializer if t.name == f"{layer.weight}_quantized")
    assert tensor.data_type == TensorProto.INT4
    assert len(tensor.raw_data) == (layer.parameters + 1) // 2
    unpacked = numpy_helper.to_array(tensor).astype(np.int8)
    assert (unpacked == materializer.weight(layer, "w4a16").codes).all()


def test_extra_outputs_come_after_the_models_own(graphs) -> None:
    graph, table = graphs["end_to_end"]
    name = graph.quantizable[-1].output
    artifact = Materializer(graph, table, ORT).materialize(_uniform(graph, "int8"), [name])
    with OnnxRuntimeRunner(artifact.data) as runner:
        assert runner.output_names == (*graph.outputs, name)


def test_int8_layers_become_integer_kernels(graphs, tmp_path: Path) -> None:
    import onnxruntime as ort

    graph, table = graphs["end_to_end"]
    artifact = Materializer(graph, table, ORT).materialize(_uniform(graph, "int8"))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(artifact.data, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    convs = sum(layer.op == "Conv" for layer in graph.quantizable)
    assert kinds.count("QLinearConv") == convs
    assert "QLinearSigmoid" in kinds and "QLinearMul" in kinds and "QLinearConcat" in kinds


def test_layers_that_cannot_be_quantized_are_named(graphs) -> None:
    graph, table = graphs["scores"]
    materializer = Materializer(graph, table, ORT)
    dfl = next(layer for layer in graph.layers if layer.reason and layer.reason.startswith("DFL"))
    with pytest.raises(InputError, match="cannot be quantized: DFL"):
        materializer.materialize(Allocation.of({dfl.name: "int8"}))
    with pytest.raises(InputError, match="is not in the model; did you mean"):
        materializer.materialize(Allocation.of({graph.quantizable[0].name + "x": "int8"}))
