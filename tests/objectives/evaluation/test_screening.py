"""The first look with a real tiny detector: who is screened, who is not, and that nothing is run twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector, evaluator_settings

from objectives.evaluation.bench import Bench, EvaluatorSettings
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.screening import Screener, ScreeningSettings
from objectives.objective import LATENCY_MS, WEIGHT_MIB
from objectives.quantization.weights import WeightSettings
from objectives.scores import Latency, Scores, Screened, checked
from objectives.tasks.detection.prediction_file import load_predictions
from search_spaces.allocation import Allocation
from search_spaces.formats import Granularity
from search_spaces.model_graph import ModelGraph

SIZE_ONLY = ScreeningSettings(images=16, confidence=0.99, seed=3, costs=(WEIGHT_MIB,))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture(scope="module")
def settings(graph: ModelGraph, tmp_path_factory: pytest.TempPathFactory) -> EvaluatorSettings:
    folder = tmp_path_factory.mktemp("data")
    return evaluator_settings(
        folder,
        graph,
        24,
        timing=None,
        weights=WeightSettings("rtn", Granularity.PER_TENSOR),
        screening=SIZE_ONLY,
    )


@pytest.fixture(scope="module")
def bench(settings: EvaluatorSettings) -> Iterator[Bench]:
    bench = Bench(settings)
    yield bench
    bench.close()


def _good(graph: ModelGraph) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable], "w8a16")


def _bad(graph: ModelGraph) -> Allocation:
    """Larger than the good one, for its largest layers are not quantized, and worse, for all others have 4 bits."""
    ranked = sorted(graph.quantizable, key=lambda layer: -layer.parameters)
    return Allocation.of({layer.name: "fp16" if rank < 3 else "w4a16" for rank, layer in enumerate(ranked)})


@pytest.fixture(scope="module")
def reference(bench: Bench) -> Scores:
    return bench.reference()


@pytest.fixture(scope="module")
def scored(bench: Bench, graph: ModelGraph, reference: Scores) -> dict[str, Scores]:
    """Full scores."""
    found = {"good": bench.evaluate(_good(graph), reference), "bad": bench.evaluate(_bad(graph), reference)}
    good, bad = found.values()
    assert isinstance(good, Scores) and isinstance(bad, Scores) and "look" not in good.seconds
    assert bad.accuracy.map_50_95 < good.accuracy.map_50_95 - 0.05
    assert bad.size.weight_bytes > good.size.weight_bytes
    return found


def test_a_clearly_dominated_scheme_is_screened(
    graph: ModelGraph, settings: EvaluatorSettings, scored: dict[str, Scores], reference: Scores
) -> None:
    leader = _good(graph).digest
    with Evaluator(settings) as evaluator:  # through the child process
        found = evaluator.evaluate(_bad(graph), reference, {leader: scored["good"]})
    assert isinstance(found, Screened) and checked(found) is found
    look = found.look
    assert (look.leader, look.images, look.total, look.confidence) == (leader, 16, 24, 0.99)
    assert look.difference < look.upper < 0
    assert look.expected == pytest.approx(scored["good"].accuracy.map_50_95 + look.difference)
    assert abs(look.expected - scored["bad"].accuracy.map_50_95) < 0.1
    assert found.size == scored["bad"].size and found.artifact == scored["bad"].artifact
    assert found.saved == pytest.approx(found.seconds["look"] / 2) and found.saved > 0


def test_one_that_may_be_in_the_front_is_scored_in_full_and_alike(
    bench: Bench, graph: ModelGraph, settings: EvaluatorSettings, scored: dict[str, Scores], reference: Scores
) -> None:
    kept = settings.predictions / f"{_good(graph).digest}.npz"
    before = load_predictions(kept)
    kept.unlink()
    smaller = replace(scored["bad"], size=scored["good"].size)
    found = bench.evaluate(_good(graph), reference, {_bad(graph).digest: smaller})
    assert isinstance(found, Scores) and found.accuracy == scored["good"].accuracy
    assert found.agreement == pytest.approx(scored["good"].agreement) and {"look", "compare"} <= set(found.seconds)
    after = load_predictions(kept)
    assert after.ids == before.ids
    assert all(np.array_equal(a, b) for a, b in zip(after.detections, before.detections, strict=True))


def test_an_equal_scheme_is_not_screened(
    bench: Bench, graph: ModelGraph, scored: dict[str, Scores], reference: Scores
) -> None:
    same = _bad(graph)
    assert isinstance(bench.evaluate(same, reference, {same.digest: scored["bad"]}), Scores)


def test_without_the_leaders_detections_a_scheme_is_scored_in_full(
    bench: Bench, graph: ModelGraph, scored: dict[str, Scores], reference: Scores
) -> None:
    assert isinstance(bench.evaluate(_bad(graph), reference, {"0" * 64: scored["good"]}), Scores)


def test_only_a_scheme_that_costs_no_more_leads(settings: EvaluatorSettings, scored: dict[str, Scores]) -> None:
    mine = scored["bad"]
    larger = replace(scored["good"], size=replace(mine.size, weight_bytes=mine.size.weight_bytes + 1))
    screener = Screener(SIZE_ONLY, settings.dataset, Path())
    assert screener.leader({"larger": larger}, None, mine.size) is None
    assert screener.leader({"larger": larger, "equal": scored["good"], "same": mine}, None, mine.size) == "equal"


def test_a_leader_is_faster_by_more_than_timing_noise(settings: EvaluatorSettings, scored: dict[str, Scores]) -> None:
    timed = Latency(10.0, 10.0, 10.0, 10.0, 0.01, 100, 1.0, 10.0)
    screener = Screener(replace(SIZE_ONLY, costs=(LATENCY_MS, WEIGHT_MIB)), settings.dataset, Path())
    for ratio, leads in ((0.97, True), (0.99, False)):
        other = replace(scored["good"], latency=replace(timed, ratio=ratio))
        assert screener.leader({"other": other}, timed, scored["bad"].size) == ("other" if leads else None)


def test_the_first_look_is_a_fixed_part_of_the_images(settings: EvaluatorSettings) -> None:
    first, again = (Screener(SIZE_ONLY, settings.dataset, Path()) for _ in range(2))
    other = Screener(replace(SIZE_ONLY, seed=4), settings.dataset, Path())
    assert first.rows == again.rows != other.rows
    assert len(first.rows) == 16 and sorted(first.rows + first.rest) == list(range(24))


def test_one_bad_image_is_no_clear_difference(
    graph: ModelGraph, settings: EvaluatorSettings, scored: dict[str, Scores]
) -> None:
    screener, digest = Screener(SIZE_ONLY, settings.dataset, settings.predictions), _good(graph).digest
    kept = load_predictions(settings.predictions / f"{digest}.npz")
    found = kept.only({settings.dataset.images[row].id for row in screener.rows})
    for lost, dominated in ((1, False), (len(found), True)):
        emptied = [rows[:0] if place < lost else rows for place, rows in enumerate(found.detections)]
        look = screener.look(replace(found, detections=tuple(emptied)), digest, scored["good"].accuracy.map_50_95)
        assert look.difference < 0 and look.dominated == dominated
