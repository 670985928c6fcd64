"""A model that leaves its image size open scores as the same model exported at one size, quantized too."""

from pathlib import Path

import pytest
from open_size import open_detector
from tiny_detectors import build_detector, evaluator_settings

from objectives.evaluation.bench import Bench
from objectives.evaluation.settings import EvaluatorSettings
from objectives.runtimes.registry import default_runtime, open_runtime, parse_settings
from objectives.scores import Scores
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


def _scores(settings: EvaluatorSettings, graph: ModelGraph, fmt: str) -> tuple[Scores, Scores]:
    bench = Bench(settings)
    try:
        reference = bench.reference()
        found = bench.evaluate(Allocation.uniform([x.name for x in graph.quantizable], fmt), reference)
    finally:
        bench.close()
    assert isinstance(found, Scores)
    return reference, found


@pytest.mark.parametrize("stated", [(64, 64), None])
@pytest.mark.parametrize("batch", [1, 2])
def test_scores_of_an_open_size(tmp_path: Path, stated: tuple[int, int] | None, batch: int) -> None:
    runtime = parse_settings({"batch": batch})
    fixed = ModelGraph(build_detector(tmp_path / "fixed.onnx"))
    expected = _scores(evaluator_settings(tmp_path / "a", fixed, 4, timing=None, runtime=runtime), fixed, "int8")
    graph = ModelGraph(open_detector(tmp_path / "open.onnx", stated=stated), image_size=(64, 64))
    found = _scores(evaluator_settings(tmp_path / "b", graph, 4, timing=None, runtime=runtime), graph, "int8")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.accuracy == theirs.accuracy
        assert ours.size == theirs.size
    assert found[1].agreement == expected[1].agreement


def test_the_reference_has_the_size_that_schemes_have(tmp_path: Path) -> None:
    path = open_detector(tmp_path / "m.onnx", stated=(64, 64))
    model = default_runtime().file_model(ModelGraph(path))
    assert isinstance(model, bytes)
    (tmp_path / "reference.onnx").write_bytes(model)
    read = ModelGraph(tmp_path / "reference.onnx")
    assert (read.input_shape, read.sized) == ((1, 3, 64, 64), None)
    assert recognise(read).image_size == (64, 64)


def test_an_engine_of_it_needs_no_profile(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    from objectives.runtimes.tensorrt_rtx.build import build_engine
    from objectives.runtimes.tensorrt_rtx.capability import parse_capability

    runtime = open_runtime(parse_settings({"name": "tensorrt-rtx", "compute_capability": "8.9"}))
    graph = ModelGraph(open_detector(tmp_path / "m.onnx", stated=(64, 96)))
    model = runtime.file_model(graph)
    data = model if isinstance(model, bytes) else model.read_bytes()
    assert len(build_engine(data, parse_capability("8.9"))[0]) > 0
