"""A student computes what the materialized artifact computes, whatever it has learnt."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from dialects import DIALECTS
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.refined import load_refined, save_refined
from objectives.quantization.weights import WeightSettings, weight_key
from objectives.runtimes.tensorrt.dialect import EMULATED
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, Number
from search_spaces.model_graph import ModelGraph

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.executor import Executor  # noqa: E402
from objectives.refinement.student import Student  # noqa: E402

THREE = Format("w3a16", replace(Number.INT4, name="int3", least=-4.0, largest=3.0), Number.FP16)
WEIGHTS = WeightSettings("rtn", block_size=8)
MOVES = {"codes": 0.4, "scales": 0.02, "biases": 0.1, "ranges": 0.03}


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    FORMATS[THREE.name] = THREE
    yield
    del FORMATS[THREE.name]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("m") / "scores.onnx"))


@pytest.fixture(scope="module")
def image(graph: ModelGraph) -> np.ndarray:
    return np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)


@pytest.fixture(scope="module")
def ranges(graph: ModelGraph, image: np.ndarray) -> CalibrationTable:
    return calibrate(graph, [image], "max")


def _scheme(graph: ModelGraph, fmt: str) -> Allocation:
    names = [layer.name for layer in graph.quantizable]
    if fmt != "mixed":
        return Allocation.uniform([x.name for x in graph.quantizable if not x.lacks(FORMATS[fmt])], fmt)
    drawn = ["int8", "w4a16", "fp16", "w8a16", "int8"]
    return Allocation.of({name: drawn[place % len(drawn)] for place, name in enumerate(names)})


def _moved(student: Student, graph: ModelGraph) -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = {graph.input, *graph.producer}
    with torch.no_grad():
        for group in student.groups(student.weights, tensors):
            for parameter in group.parameters:
                parameter.add_(MOVES[group.kind] * torch.randn(parameter.shape, generator=draw))


def _in_onnxruntime(model: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """Without fusions, which round elsewhere."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: image}), strict=True))


@pytest.mark.parametrize("dialect", ["onnxruntime", "emulated"])
@pytest.mark.parametrize("fmt", ["w4a16", "w3a16", "w8a16", "nvfp4", "int8", "fp8", "mixed"])
def test_it_computes_what_the_refined_artifact_computes(
    graph: ModelGraph, ranges: CalibrationTable, image: np.ndarray, fmt: str, dialect: str, tmp_path: Path
) -> None:
    wanted_dialect = EMULATED if dialect == "emulated" else DIALECTS[dialect]
    allocation = _scheme(graph, fmt)
    if any(wanted_dialect.refuses(FORMATS[name]) for _, name in allocation.items):
        pytest.skip("refused by name")
    before = Materializer(graph, ranges, wanted_dialect, WEIGHTS)
    executor = Executor(graph, "cpu")
    student = Student(executor, before, allocation, WEIGHTS)
    _moved(student, graph)
    save_refined(tmp_path, student.refined())
    after = Materializer(graph, ranges, wanted_dialect, WEIGHTS, refined={"r": load_refined(tmp_path)})
    refined = replace(allocation, numbers="r")
    tensors = [layer.output for layer in graph.quantizable]
    artifact = after.materialize(refined, tensors)
    artifact.check()
    assert artifact.size == before.materialize(allocation).size
    expected = _in_onnxruntime(artifact.engine_model, image)
    nodes = executor.nodes(tensors, [graph.input])
    with torch.no_grad():
        found = executor.run(nodes, {graph.input: torch.from_numpy(image)}, tensors, student.read)
    unquantized = executor.run(nodes, {graph.input: torch.from_numpy(image)}, tensors)
    activations = bool(student.placement.pairs)
    first = True
    for name in tensors:
        own, theirs = found[name].numpy(), expected[name]
        scale = np.abs(theirs).max()
        # A sum in another order may fall on the other side of a rounding edge: few values, and by a step.
        few = np.quantile(np.abs(own - theirs), 0.99 if activations and not first else 1.0)
        assert few <= (2e-2 if activations and not first else 1e-4) * scale, name
        first = False
    assert np.abs(unquantized[name].numpy() - theirs).max() > 20 * np.abs(own - theirs).mean()


def test_the_codes_that_learning_begins_with_are_the_schemes_own(graph: ModelGraph, ranges: CalibrationTable) -> None:
    before = Materializer(graph, ranges, DIALECTS["onnxruntime"], WEIGHTS)
    for fmt in ("w4a16", "int8"):
        allocation = _scheme(graph, fmt)
        student = Student(Executor(graph, "cpu"), before, allocation, WEIGHTS)
        refined = student.refined()
        for layer in graph.quantizable:
            one, other = before.weight(layer, fmt), refined.weights[weight_key(layer, FORMATS[fmt], WEIGHTS)].weight
            np.testing.assert_array_equal(one.codes, other.codes)
            np.testing.assert_array_equal(one.scale, other.scale)
        pairs = refined.pairs
        for (tensor, number), params in before.placement(allocation).pairs.items():
            same = replace(params, scale=float(np.float32(params.scale)))
            assert pairs[tensor, number.name] == same


def test_refined_ranges_of_another_dialect_are_refused(graph: ModelGraph, ranges: CalibrationTable) -> None:
    before = Materializer(graph, ranges, DIALECTS["onnxruntime"], WEIGHTS)
    allocation = _scheme(graph, "int8")
    refined = {"r": Student(Executor(graph, "cpu"), before, allocation, WEIGHTS).refined()}
    other = Materializer(graph, ranges, DIALECTS["tensorrt"], WEIGHTS, refined=refined)
    other.materialize(allocation)
    with pytest.raises(InputError, match="refine for it"):
        other.materialize(replace(allocation, numbers="r"))


def test_numbers_that_are_not_there_are_refused(graph: ModelGraph, ranges: CalibrationTable) -> None:
    made = Materializer(graph, ranges, DIALECTS["onnxruntime"], WEIGHTS)
    with pytest.raises(InputError, match="refine the trial again"):
        made.materialize(replace(_scheme(graph, "int8"), numbers="r"))


def test_an_operator_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    path = build_detector(tmp_path / "m.onnx")
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    node.op_type = "Softsign"
    onnx.save(model, path)
    graph = ModelGraph(path)
    with pytest.raises(InputError, match=f"{node.name}.*Softsign"):
        Executor(graph, "cpu").nodes(graph.outputs, [graph.input])
