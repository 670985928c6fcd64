"""TensorRT for real: engines of a tiny detector are built, read back, timed and scored on the GPU."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.faults import VARIABLE
from objectives.evaluation.settings import EvaluatorSettings
from objectives.latency import measure
from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.tensorrt.runtime import TensorRt
from objectives.scores import Failure, Latency, Scores
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]


def _scheme(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable], fmt)


@pytest.fixture(scope="module")
def materializer(runtime: TensorRt, graph: ModelGraph, settings: EvaluatorSettings) -> Materializer:
    return Materializer(graph, CalibrationTable.from_json(settings.calibration.read_text()), runtime.dialect())


def test_the_fp16_engine_agrees_with_onnx_runtime(runtime, graph, materializer) -> None:
    model = materializer.materialize(_scheme(graph, "fp16")).engine_model
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with runtime.open(model, graph) as opened, OnnxRuntimeRunner(graph.path) as base:
        assert opened.build_seconds > 0
        assert opened.runner.method == "cuda graph"
        assert opened.runner.input_shape == graph.input_shape and opened.runner.output_names == base.output_names
        found, expected = opened.runner.infer(image), base.infer(image)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        kept = other[..., 4] > 0.1 if other.shape[-1] == 6 else slice(None)
        np.testing.assert_allclose(one[kept], other[kept], rtol=0.05, atol=1.0)


def test_an_engine_is_built_once(runtime, graph, materializer) -> None:
    model = materializer.materialize(_scheme(graph, "fp16")).engine_model
    with runtime.open(model, graph) as opened:
        assert opened.build_seconds == 0.0


def test_int8_layers_run_in_int8_and_the_report_says_so(runtime, graph, materializer) -> None:
    scheme = _scheme(graph, "int8")
    blocked: list[str] = []
    while True:
        try:
            with runtime.open(materializer.materialize(scheme).engine_model, graph) as opened:
                report = runtime.inspect(opened, graph, scheme)
            break
        except BuildError as error:
            assert error.layer, f"the log names no layer: {error}"
            blocked.append(error.layer)
            scheme = Allocation.of({**scheme.formats, error.layer: "fp16"})
    asked = {name for name, fmt in scheme.items if fmt == "int8"}
    ran = {layer.layer for layer in report.layers if layer.precision == "int8"}
    assert ran & asked and len(report.unmet) < len(asked)
    assert report.total_ms > 0 and report.engine_bytes > 0
    assert EngineReport.from_json(report.to_json()) == report


def test_the_same_engine_twice_has_ratio_one(runtime, graph, materializer) -> None:
    model = materializer.materialize(_scheme(graph, "fp16")).engine_model
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with runtime.open(model, graph) as one, runtime.open(model, graph) as two:
        found = measure(one.runner, two.runner, image, observe=runtime.observe)
    assert isinstance(found, Latency), found
    assert found.method == "cuda graph" and found.ratio == pytest.approx(1.0, abs=0.03)
    assert found.state is not None and found.state.sm_mhz > 0


def test_a_model_that_cannot_be_parsed_is_a_build_error(runtime) -> None:
    with pytest.raises(BuildError), runtime.open(b"not an onnx model"):
        raise AssertionError("it was built")


def test_a_child_scores_reference_and_scheme(graph: ModelGraph, settings: EvaluatorSettings) -> None:
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
        found = evaluator.evaluate(_scheme(graph, "fp16"), reference)
    assert isinstance(found, Scores), found
    assert found.latency is not None and found.latency.ratio == pytest.approx(1.0, abs=0.05)
    assert found.accuracy.map_50_95 == pytest.approx(reference.accuracy.map_50_95, abs=0.02)
    assert set(found.seconds) == {"materialize", "build", "evaluate", "time", "inspect"}
    assert settings.engines is not None
    assert (settings.engines / f"{_scheme(graph, 'fp16').digest}.json").is_file()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("build segv", "crash"),
        ("build abort", "crash"),
        ("materialize memory", "memory"),
        ("build kill", "memory"),
        ("evaluate gpu_memory", "memory"),
        ("time illegal_access", "device"),
        ("evaluate hang", "timeout"),
    ],
)
def test_every_fault_is_a_value_and_the_next_trial_starts_soon(
    graph: ModelGraph,
    settings: EvaluatorSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    kind: str,
) -> None:
    plan = tmp_path / "faults"
    monkeypatch.setenv(VARIABLE, str(plan))
    limit = 45.0 if "hang" in line else 600.0
    with Evaluator(
        replace(
            settings, runtime=settings.runtime.model_copy(update={"limit_s": limit}), failures=tmp_path / "failures"
        )
    ) as evaluator:
        reference = evaluator.reference()
        plan.write_text(line + "\n")
        failed = evaluator.evaluate(_scheme(graph, "fp16"), reference)
        ended = time.perf_counter()
        assert isinstance(failed, Failure) and failed.kind == kind, failed
        assert (tmp_path / failed.log).is_file()
        found = evaluator.evaluate(_scheme(graph, "fp16"), reference)
        spent = time.perf_counter() - ended
    assert isinstance(found, Scores), found
    started = spent - sum(found.seconds.values())
    print(f"{line:24} {kind:8} next trial started after {started:.1f} s, done after {spent:.1f} s: {failed.message}")
    assert started < 10, f"the next trial started after {started:.1f} s"
