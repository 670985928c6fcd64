"""What every runtime promises; those of other packages are taken in by their entry points.

pytest tests/objectives/runtimes/test_contract.py -k NAME
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_detectors import build_detector, write_calibration

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.engine_builder import BuildError, EngineBuilder
from objectives.runtimes.opening import open_file
from objectives.runtimes.registry import RUNTIMES, builds_engines, open_runtime, parse_settings
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.support import COMPUTES, SupportKind
from objectives.scores import Scores, checked
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.model_graph import ModelGraph

NAMES = RUNTIMES.names()
ROUNDED = WeightSettings("rtn")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("model") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="module")
def table(graph: ModelGraph, tmp_path_factory: pytest.TempPathFactory) -> CalibrationTable:
    folder = tmp_path_factory.mktemp("calibration")
    images = load_calibration(write_calibration(folder, 3), None).images
    size = graph.input_shape[2], graph.input_shape[3]
    return calibrate(graph, PreprocessedImages.build(images, Preprocessing(size), folder / "cache").singles(), "max")


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> type[Runtime]:
    return RUNTIMES.get(request.param)


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """One that this machine can run."""
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    found = open_runtime(parse_settings({"name": request.param}))
    try:
        found.check()
    except RuntimeUnavailable as error:
        pytest.skip(str(error))
    yield found


@pytest.fixture
def runnable(runtime: Runtime) -> Runtime:
    if not runtime.artifacts:
        pytest.skip(f"{runtime.name} makes no artifacts")
    return runtime


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable if not layer.lacks(FORMATS[fmt])], fmt)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_data(name: str) -> None:
    settings = parse_settings({"name": name, "threads": 2, "batch": 3})
    assert type(settings) is RUNTIMES.get(name).settings_type and (settings.threads, settings.batch) == (2, 3)
    assert parse_settings(settings.model_dump()) == settings == pickle.loads(pickle.dumps(settings))
    json.dumps(settings.model_dump())
    assert set(settings.builder_keys) | set(settings.path_keys) <= set(type(settings).model_fields)
    with pytest.raises(ValidationError, match=r"unknown key; did you mean 'threads'"):
        parse_settings({"name": name, "thread": 2})


def test_a_class_says_what_holds_on_every_machine(kind: type[Runtime]) -> None:
    assert kind.title and kind.timing.min_iterations > 0 and kind.timing.max_cov > 0 and kind.reformat_share >= 0
    assert builds_engines(parse_settings({"name": kind.settings_type.model_fields["name"].default})) is issubclass(
        kind, EngineBuilder
    )
    for finding in kind.findings():
        assert finding.name and finding.detail and "\n" not in finding.detail + finding.remedy
        assert finding.ok or finding.remedy


def test_what_the_machine_lacks_is_told_by_check_alone(kind: type[Runtime]) -> None:
    name = kind.settings_type.model_fields["name"].default
    runtime = open_runtime(parse_settings({"name": name}))
    assert runtime.name == name
    assert isinstance(runtime.dialect(), Dialect)  # files can be written for a machine that is elsewhere


def test_every_format_has_an_answer(runtime: Runtime) -> None:
    assert runtime.support(FORMATS[UNQUANTIZED]).kind is SupportKind.COMPUTES
    for fmt in FORMATS.values():
        answer = runtime.support(fmt)
        assert (answer == COMPUTES) == (answer.kind is SupportKind.COMPUTES)
        assert bool(answer.text) == (answer.kind is not SupportKind.COMPUTES)


def test_identity_is_plain_and_stays(runtime: Runtime) -> None:
    again = open_runtime(runtime.settings)
    for facts in ("versions", "device", "build_facts"):
        one, other = getattr(runtime, facts)(), getattr(again, facts)()
        assert one == other and json.loads(json.dumps(one)) == one


def test_the_device_is_held_again_by_who_holds_it(runtime: Runtime) -> None:
    with runtime.hold(alone=False), runtime.hold(alone=True):
        assert runtime.lock_name


def test_the_unquantized_scheme_computes_what_the_model_does(
    runnable: Runtime, graph: ModelGraph, table: CalibrationTable
) -> None:
    materializer = Materializer(graph, table, runnable.dialect(), ROUNDED)
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    model = materializer.materialize(_uniform(graph, UNQUANTIZED)).engine_model
    with runnable.open(model, graph) as opened, OnnxRuntimeRunner(graph.path) as base:
        assert opened.runner.input_shape == graph.input_shape and opened.runner.output_names == base.output_names
        found, expected = opened.runner.infer(image), base.infer(image)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        kept = other[..., 4] > 0.1 if other.shape[-1] == 6 else slice(None)
        np.testing.assert_allclose(one[kept], other[kept], rtol=0.05, atol=1.0)


@pytest.mark.parametrize("fmt", [name for name in FORMATS if name != UNQUANTIZED])
def test_what_it_computes_in_can_be_run(
    runnable: Runtime, graph: ModelGraph, table: CalibrationTable, fmt: str
) -> None:
    if runnable.support(FORMATS[fmt]).kind is not SupportKind.COMPUTES:
        pytest.skip(f"{runnable.name} does not compute in {fmt}")
    first = graph.quantizable[0].name
    artifact = Materializer(graph, table, runnable.dialect(), ROUNDED).materialize(Allocation.of({first: fmt}))
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with runnable.open(artifact.engine_model, graph) as opened:
        assert all(np.isfinite(output).all() for output in opened.runner.infer(image))


def test_a_model_file_is_opened_as_it_is(runnable: Runtime, graph: ModelGraph) -> None:
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with open_file(runnable, graph.path) as runner:
        assert [output.shape for output in runner.infer(image)] == list(graph.outputs.values())


def test_an_exported_scheme_is_a_model_file_too(
    runnable: Runtime, graph: ModelGraph, table: CalibrationTable, tmp_path: Path
) -> None:
    path = tmp_path / "scheme.onnx"
    artifact = Materializer(graph, table, runnable.dialect(), ROUNDED).materialize(_uniform(graph, UNQUANTIZED))
    path.write_bytes(artifact.engine_model)
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    with open_file(runnable, path) as runner, runnable.open(artifact.engine_model, graph) as opened:
        for one, other in zip(runner.infer(image), opened.runner.infer(image), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_no_model_is_an_error_of_one_line(runnable: Runtime) -> None:
    with pytest.raises((InputError, BuildError)) as caught, runnable.open(b"not an onnx model"):
        raise AssertionError("it was opened")
    assert len(str(caught.value).splitlines()) == 1


def test_costs_cover_every_choice_or_are_not_known(
    runtime: Runtime, graph: ModelGraph, table: CalibrationTable
) -> None:
    image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
    made = Materializer(graph, table, runtime.dialect(), ROUNDED) if runtime.artifacts else None
    costs = runtime.layer_costs(graph, made, lambda: image)
    if costs is not None:
        assert all(costs.cost(layer.name, fmt) >= 0 for layer in graph.quantizable for fmt in FORMATS)
        assert sum(costs.cost(layer.name, UNQUANTIZED) for layer in graph.quantizable) > 0


def test_an_engine_is_built_once(runtime: Runtime, graph: ModelGraph, table: CalibrationTable) -> None:
    if not isinstance(runtime, EngineBuilder):
        pytest.skip(f"{runtime.name} builds no engines")
    scheme = _uniform(graph, UNQUANTIZED)
    model = Materializer(graph, table, runtime.dialect(), ROUNDED).materialize(scheme).engine_model
    assert runtime.cached(model, graph) is None
    file, seconds = runtime.build(model, graph)
    assert seconds > 0 and runtime.cached(model, graph) == file and runtime.build(model, graph) == (file, 0.0)
    with runtime.open(model, graph) as opened:
        report = runtime.inspect(opened, graph, scheme)
    assert report.layers and report.total_ms > 0 and report.engine_bytes > 0


def test_an_evaluator_of_its_own_gives_scores_that_can_be(runtime: Runtime, graph: ModelGraph) -> None:
    if runtime.artifacts:
        with pytest.raises(InputError, match=runtime.name):
            runtime.study_evaluator(graph)
        assert runtime.sensitivity(graph, list(FORMATS)) is None
        return
    evaluator = runtime.study_evaluator(graph)
    reference = evaluator.reference()
    assert checked(reference) is reference
    found = evaluator.evaluate(_uniform(graph, "int8"), reference)
    assert isinstance(found, Scores) and found == evaluator.evaluate(_uniform(graph, "int8"), reference)
    assert found.latency is not None
    assert found.latency_ms == pytest.approx(reference.latency_ms * found.latency.ratio)
    prior = runtime.sensitivity(graph, ["fp16", "int8"])
    assert prior is not None and {entry.layer for entry in prior.entries} == {x.name for x in graph.quantizable}


def test_a_file_is_tried_before_it_is_handed_out(runnable: Runtime, graph: ModelGraph, table: CalibrationTable) -> None:
    materializer = Materializer(graph, table, runnable.dialect(), ROUNDED)
    artifact = materializer.materialize(_uniform(graph, "int8"))
    image = np.zeros(graph.input_shape, np.float32)
    if type(runnable).try_out is EngineBuilder.try_out:
        assert "builds an engine" in runnable.try_out(artifact.data, image)
        return
    assert runnable.try_out(artifact.data, image) == ""
    with pytest.raises(InputError):
        runnable.try_out(artifact.data[:-300], image)
    with pytest.raises(InputError, match="not finite"):
        runnable.try_out(materializer.materialize(Allocation(())).data, np.full_like(image, np.inf))
