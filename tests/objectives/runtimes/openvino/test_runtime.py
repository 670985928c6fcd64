"""OpenVINO itself: what it computes, what it says of itself, what an export holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_detectors import build_detector

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.openvino.compiling import build, compiled_of, own_files
from objectives.runtimes.openvino.devices import capabilities, core
from objectives.runtimes.openvino.runner import OpenVinoRunner
from objectives.runtimes.openvino.runtime import OpenVino
from objectives.runtimes.openvino.settings import OpenVinoSettings
from objectives.runtimes.support import SupportKind
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph

pytest.importorskip("openvino", reason="needs the extra openvino")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("m") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="module")
def materializer(graph: ModelGraph) -> Materializer:
    draw = np.random.default_rng(0)
    table = calibrate(graph, (draw.random(graph.input_shape, dtype=np.float32) for _ in range(3)), "max")
    return Materializer(graph, table, OpenVino(OpenVinoSettings()).dialect(), WeightSettings("rtn"))


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenVino:
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path))
    return OpenVino(OpenVinoSettings())


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable if not layer.lacks(FORMATS[fmt])], fmt)


def test_int8_is_computed_in_integers_and_close_to_onnx_runtime(
    runtime: OpenVino, graph: ModelGraph, materializer: Materializer
) -> None:
    scheme = _uniform(graph, "int8")
    model = materializer.materialize(scheme, [layer.output for layer in graph.quantizable]).engine_model
    image = np.random.default_rng(1).random(graph.input_shape, dtype=np.float32)
    with OnnxRuntimeRunner(model) as emulated:
        expected = dict(zip(emulated.output_names, emulated.infer(image), strict=True))
    runner = OpenVinoRunner(compiled_of(model, runtime.settings), tuple(expected))
    found = dict(zip(runner.output_names, runner.infer(image), strict=True))
    for layer in graph.quantizable:
        one, other = found[layer.output], expected[layer.output]
        assert np.abs(one - other).mean() < 0.1 * np.abs(other).mean() + 1e-6, layer.name
    with runtime.open(materializer.materialize(scheme).engine_model, graph) as opened:
        report = runtime.inspect(opened, graph, scheme)
    convs = {layer.layer: layer.precision for layer in report.layers if layer.kind == "Convolution"}
    assert report.unmet == () and set(convs) == {layer.name for layer in graph.quantizable}
    assert set(convs.values()) == {"int8"}


def test_every_layer_of_the_unquantized_model_runs_as_it_was_asked(
    runtime: OpenVino, graph: ModelGraph, materializer: Materializer
) -> None:
    scheme = _uniform(graph, UNQUANTIZED)
    with runtime.open(materializer.materialize(scheme).engine_model, graph) as opened:
        report = runtime.inspect(opened, graph, scheme)
    assert report.unmet == () and report.version == runtime.versions()["openvino"]
    assert "int8" not in {layer.precision for layer in report.layers}


@pytest.mark.parametrize("fmt", ["w4a16", "w8a16"])
def test_a_mixed_scheme_is_built_and_its_weights_stay_small(
    runtime: OpenVino, graph: ModelGraph, materializer: Materializer, fmt: str
) -> None:
    mixed = {x.name: "int8" if place % 2 else fmt for place, x in enumerate(graph.quantizable)}
    artifact = materializer.materialize(Allocation.of(mixed))
    files = runtime.export(artifact, graph, "", quantized=True).files
    whole = runtime.export(materializer.materialize(_uniform(graph, UNQUANTIZED)), graph, "", quantized=False).files
    assert len(files["model.bin"]) < 0.8 * len(whole["model.bin"])
    image = np.random.default_rng(1).random(graph.input_shape, dtype=np.float32)
    with runtime.open(artifact.engine_model, graph) as opened:
        assert all(np.isfinite(values).all() for values in opened.runner.infer(image))


def test_an_export_is_the_same_twice_and_runs(
    runtime: OpenVino, graph: ModelGraph, materializer: Materializer, tmp_path: Path
) -> None:
    artifact = materializer.materialize(_uniform(graph, "int8"))
    export = runtime.export(artifact, graph, "", quantized=True)
    own = {name: data for name, data in export.files.items() if name != "benchmark_app.json"}
    assert own == own_files(artifact.engine_model) and set(own) == {"model.xml", "model.bin"}
    assert json.loads(export.files["benchmark_app.json"]) == {"CPU": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}}
    for name, data in export.files.items():
        (tmp_path / name).write_bytes(data)
    image = np.random.default_rng(1).random(graph.input_shape, dtype=np.float32)
    read = OpenVinoRunner(core().compile_model(core().read_model(tmp_path / "model.xml"), "CPU", {}))
    assert read.input_shape == graph.input_shape
    with runtime.open(artifact.engine_model, graph) as opened:
        assert [x.shape for x in read.infer(image)] == [x.shape for x in opened.runner.infer(image)]
    assert (
        export.tool == "benchmark_app" and "-nthreads 1" in export.command and "-infer_precision f32" in export.command
    )


def test_floats_are_computed_in_what_was_asked_for_and_nothing_else() -> None:
    for precision, capability in (("f32", "FP32"), ("f16", "FP16"), ("bf16", "BF16")):
        runtime = OpenVino(OpenVinoSettings(precision=precision))
        if capability in capabilities("CPU"):
            runtime.check()
        else:
            with pytest.raises(
                RuntimeUnavailable, match=rf"runtime\.precision {precision}: CPU does not have it; choose f32"
            ):
                runtime.check()


def test_a_device_that_takes_another_precision_is_refused(graph: ModelGraph, materializer: Materializer) -> None:
    model = materializer.materialize(_uniform(graph, UNQUANTIZED)).engine_model
    compiled = compiled_of(model, OpenVinoSettings())
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    if "FP16" in capabilities("CPU"):
        pytest.skip("this processor computes in fp16")
    with pytest.raises(BuildError, match=r"set runtime\.precision to it"):
        build(model, OpenVinoSettings(precision="f16"))


@pytest.mark.parametrize("device", ["MOON", "GPU.7", "NPU"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    if device in core().available_devices:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(RuntimeUnavailable, match=rf"runtime\.device_name '{device}': .*; choose CPU") as caught:
        OpenVino(OpenVinoSettings(device_name=device, precision="f16")).check()
    assert "\n" not in str(caught.value)


def test_support_is_what_one_layer_shows() -> None:
    runtime = OpenVino(OpenVinoSettings())
    kinds = {name: runtime.support(fmt).kind for name, fmt in FORMATS.items()}
    assert kinds["int8"] is SupportKind.COMPUTES or "INT8" not in capabilities("CPU")
    assert kinds["w8a16"] is kinds["w4a16"] is SupportKind.STORES


def test_files_do_not_depend_on_a_gpu() -> None:
    with pytest.raises(InputError, match=r"--compute-capability 8\.9"):
        OpenVino(OpenVinoSettings()).dialect(capability="8.9")


def test_half_inputs_and_outputs_are_fed_floats(graph: ModelGraph) -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")
    ends = [value(name, onnx.TensorProto.FLOAT16, [1, 3, 4, 4]) for name in "xy"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", ends[:1], ends[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (found,) = OpenVinoRunner(compiled_of(model.SerializeToString(), OpenVinoSettings())).infer(
        np.full((1, 3, 4, 4), 0.5, np.float32)
    )
    assert found.dtype == np.float32 and (found == 0.5).all()
