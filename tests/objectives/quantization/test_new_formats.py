"""A new integer format is one line of the table: it materializes, runs, has a size, is scored and shown."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from dialects import DIALECTS
from onnx import TensorProto
from tiny_detectors import build_detector, write_calibration

from objectives.quantization.artifact import Artifact
from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import load_recovered, recover, save_recovered
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.profile import profile_costs
from objectives.runtimes.replay.evaluator import ReplayEvaluator, ReplaySettings
from objectives.runtimes.support import SupportKind
from objectives.runtimes.tensorrt.rules import support
from objectives.scores import Scores
from objectives.sensitivity.onnx_sweep import sweep
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from objectives.torch_models.quantizers import config_name, uniform_config
from search_spaces.allocation import Allocation
from search_spaces.costs import weight_costs
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, Number, NumberSpec
from search_spaces.model_graph import ModelGraph
from tuner.report.theme import format_colour, format_order

INT16 = NumberSpec("int16", "INT16", 16, -32767.0, 32767.0, opset=21)
INT3 = dataclasses.replace(Number.INT4, name="int3", least=-4.0, largest=3.0)
NEW = [
    Format("w4a8i", Number.INT4, Number.INT8),
    Format("w8a16i", Number.INT8, INT16),
    Format("w16", INT16, Number.FP16),
    Format("w3a16", INT3, Number.FP16),
]
NAMES = [fmt.name for fmt in NEW]
BLOCKED = [name for name, fmt in FORMATS.items() if fmt.weight.block_size]  # not of every layer


class Room:
    def __init__(self, graph: ModelGraph) -> None:
        draw = np.random.default_rng(0)
        self.graph = graph
        self.images = [draw.random(graph.input_shape, dtype=np.float32) for _ in range(4)]
        self.table: CalibrationTable = calibrate(graph, iter(self.images), "max")

    def uniform(self, fmt: str) -> Allocation:
        return Allocation.uniform([x.name for x in self.graph.quantizable if not x.lacks(FORMATS[fmt])], fmt)

    def materializer(self, runtime: str = "onnxruntime") -> Materializer:
        return Materializer(self.graph, self.table, DIALECTS[runtime], WeightSettings("rtn", block_size=8))

    def error(self, allocation: Allocation) -> float:
        return self.error_of(self.materializer().materialize(allocation))

    def error_of(self, artifact: Artifact) -> float:
        artifact.check()
        total = 0.0
        with OnnxRuntimeRunner(artifact.data) as found, OnnxRuntimeRunner(self.graph.path) as expected:
            for image in self.images:
                total += float(np.square(found.infer(image)[0] - expected.infer(image)[0]).mean())
        assert np.isfinite(total)
        return total


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(ModelGraph(build_detector(tmp_path_factory.mktemp("m") / "raw.onnx", "raw")))


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """The table of formats with the new ones, each a line."""
    FORMATS.update({fmt.name: fmt for fmt in NEW})
    yield
    for name in NAMES:
        del FORMATS[name]


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("fmt", NAMES)
def test_it_is_materialized_and_its_size_is_what_the_file_stores(room: Room, fmt: str, runtime: str) -> None:
    if DIALECTS[runtime].refuses(FORMATS[fmt]):
        pytest.skip("refused by name: test_tensorrt_says_what_it_makes_of_it")
    materializer = room.materializer(runtime)
    artifact = materializer.materialize(room.uniform(fmt))
    artifact.check()
    model = onnx.load_model_from_string(artifact.data)
    kinds = {TensorProto.DataType.Value(FORMATS[fmt].weight.onnx)}
    weights = {layer.weight for layer in room.graph.quantizable}
    stored = [t for t in model.graph.initializer if t.name.removesuffix("_quantized") in weights]
    assert len(stored) == len(weights) and {t.data_type for t in stored} == kinds
    for layer in room.graph.quantizable:
        [tensor] = [t for t in stored if t.name == f"{layer.weight}_quantized"]
        weight = materializer.weight(layer, fmt)
        assert len(tensor.raw_data) == weight.code_bytes == -(-layer.parameters * FORMATS[fmt].weight.bits // 8)
        if runtime == "onnxruntime":  # TensorRT's scales are halves, which codes follow
            codes = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.int64)
            np.testing.assert_array_equal(codes, weight.codes)


def test_sizes_are_ordered_by_bits(room: Room) -> None:
    sizes = {name: room.materializer().size(room.uniform(name)) for name in FORMATS}
    assert sizes["w4a8i"].weight_bytes < sizes["int8"].weight_bytes < sizes["w16"].weight_bytes
    assert sizes["w8a16i"] == sizes["int8"]
    # Integer kernels scale after the sum over all channels, so there are no blocks, and fewer scales.
    assert sizes["w4a8i"].weight_bytes < sizes["w4a16"].weight_bytes == sizes["w3a16"].weight_bytes


def test_onnx_runtime_runs_it_and_more_bits_mean_less_error(room: Room) -> None:
    errors = {name: room.error(room.uniform(name)) for name in ("int8", *NAMES)}
    assert errors["w16"] < errors["w8a16i"] < errors["int8"] < errors["w4a8i"]
    assert errors["w3a16"] > room.error(room.uniform("w4a16"))


def test_layers_of_all_formats_in_one_model(room: Room) -> None:
    layers = [layer.name for layer in room.graph.quantizable]
    for seed in range(3):
        drawn = np.random.default_rng(seed).choice([x for x in FORMATS if x not in BLOCKED], len(layers))
        assert room.error(Allocation.of(dict(zip(layers, map(str, drawn), strict=True)))) > 0


def test_weights_are_recovered_and_kept(room: Room, tmp_path: Path) -> None:
    settings = WeightSettings("auto", block_size=8)
    wanted = [(x, fmt) for x in room.graph.quantizable for fmt in NEW if settings.recovers(x, fmt)]
    assert {fmt.name for _, fmt in wanted} == {"w4a8i", "w3a16"}
    wanted += [(x, FORMATS["w16"]) for x, fmt in wanted if fmt.name == "w3a16"]
    found = recover(room.graph, lambda: iter(room.images), wanted, settings)
    save_recovered(tmp_path / "weights.npz", found)
    kept = load_recovered(tmp_path / "weights.npz")
    for key, entry in found.items():
        assert kept[key].weight.number == entry.weight.number
        np.testing.assert_array_equal(kept[key].weight.codes, entry.weight.codes)
        top = np.abs(entry.weight.codes.astype(np.int64)).max()
        assert top <= -entry.weight.number.least and (entry.weight.number != INT16 or top > 127)
    three = [entry.weight.codes for entry in found.values() if entry.weight.number == INT3]
    assert three and all(codes.min() >= -4 and codes.max() <= 3 for codes in three)


def test_float_codes_are_recovered_and_kept(room: Room, tmp_path: Path) -> None:
    fmt, settings = FORMATS["nvfp4"], WeightSettings("auto")
    wanted = [(x, fmt) for x in room.graph.quantizable if not x.lacks(fmt) and settings.recovers(x, fmt)]
    assert len(wanted) > 3
    found = recover(room.graph, lambda: iter(room.images), wanted, settings)
    save_recovered(tmp_path / "weights.npz", found)
    kept = load_recovered(tmp_path / "weights.npz")
    for key, entry in found.items():
        weight, again = entry.weight, kept[key].weight
        assert again.codes.dtype == weight.codes.dtype and again.tensor_scale == weight.tensor_scale > 0
        np.testing.assert_array_equal(again.dequantized(), weight.dequantized())
        levels = weight.scale / np.float32(weight.tensor_scale)
        np.testing.assert_array_equal(levels, levels.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))
    scheme = Allocation.uniform([layer.name for layer, _ in wanted], "nvfp4")
    made = Materializer(room.graph, room.table, DIALECTS["onnxruntime"], settings, kept)
    artifacts = {"gptq": made.materialize(scheme), "rtn": room.materializer().materialize(scheme)}
    assert artifacts["gptq"].size == artifacts["rtn"].size
    assert room.error_of(artifacts["gptq"]) < room.error_of(artifacts["rtn"])


def test_it_has_a_sensitivity_and_costs(room: Room, tmp_path: Path) -> None:
    records = load_calibration(write_calibration(tmp_path, 2)).images
    images = PreprocessedImages.build(records, Preprocessing(room.graph.input_shape[2:]), tmp_path / "cache")
    layer = room.graph.quantizable[2].name
    pairs = [(layer, name) for name in ("w16", "w8a16i", "w4a8i")]
    contract = recognise(room.graph)
    found = sweep(room.graph, room.materializer(), contract, images, pairs, tmp_path / "journal", settings={})
    scores = [found.score(layer, name) for name in ("w16", "w8a16i", "w4a8i")]
    assert 0 <= scores[0] < scores[1] < scores[2]
    measured = profile_costs(room.graph, room.materializer(), room.images[0])
    assert all((layer, name) in measured.costs for name in FORMATS)
    assert measured.cost(layer, "w4a8i") == measured.cost(layer, "int8") > 0
    assert measured.cost(layer, "w8a16i") > 0 and measured.cost(layer, "w16") == measured.cost(layer, "fp16") > 0
    sizes = weight_costs(room.graph.layers)
    assert sizes.cost(layer, "w16") == 2 * sizes.cost(layer, "int8") == 4 * sizes.cost(layer, "w4a8i")
    replayed = ReplayEvaluator(room.graph.quantizable, ReplaySettings())
    losses = [replayed.evaluate(room.uniform(name), replayed.reference()) for name in ("w4a8i", "w8a16i")]
    assert all(isinstance(loss, Scores) and np.isfinite(loss.accuracy.map_50_95) for loss in losses)
    assert set(NAMES) <= {fmt for _, fmt in replayed.costs().costs}


def test_tensorrt_says_what_it_makes_of_it(room: Room) -> None:
    found = {name: support(fmt, "10.13.2", (9, 0)) for name, fmt in FORMATS.items()}
    assert list(found) == list(FORMATS)
    assert found["w4a8i"].kind is SupportKind.IMPOSSIBLE and "int4 weights beside int8" in found["w4a8i"].text
    old = support(FORMATS["w4a8i"], "8.6.1", (9, 0))
    assert old.kind is SupportKind.STORES and "size" in old.text
    assert found["w8a16i"].kind is SupportKind.IMPOSSIBLE and "int16" in found["w8a16i"].text
    assert found["w3a16"].kind is SupportKind.STORES and "size only" in found["w3a16"].text
    with pytest.raises(InputError, match=r"w8a16i of layer .* needs TensorRT >= 10"):
        room.materializer("tensorrt-8").materialize(room.uniform("w8a16i"))
    room.materializer("tensorrt-8").materialize(room.uniform("w4a8i")).check()


def test_modelopt_and_the_report_name_it() -> None:
    assert config_name("w4a8i") == "INT4_WEIGHT_INT8_ACT_CFG"
    weights, inputs = uniform_config("w8a16i", "per_channel")["quant_cfg"][1:]
    assert (weights["cfg"]["num_bits"], inputs["cfg"]["num_bits"]) == (8, 16)
    with pytest.raises(InputError, match=r"nvfp4: its blocks of 16 input channels .*onnx"):
        uniform_config("nvfp4", "per_channel")
    assert format_order(["w4a8i", "?", "int8"]) == ["int8", "w4a8i", "?"]
    assert format_colour("w4a8i") != format_colour("int8")
