"""The evaluator with real parts: a tiny detector, real images, a real child process that really dies."""

import dataclasses
import os
import signal

import psutil
import pytest
from tiny_detectors import build_detector, evaluator_settings

from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.settings import EvaluatorSettings
from objectives.latency import TimingProtocol
from objectives.scores import Failure, Scores
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.prediction_file import load_predictions
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

QUICK = TimingProtocol(warmup_ms=5, min_seconds=0.1, min_iterations=5, max_cov=5.0)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("model") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="module")
def settings(graph: ModelGraph, tmp_path_factory: pytest.TempPathFactory) -> EvaluatorSettings:
    folder = tmp_path_factory.mktemp("data")
    return evaluator_settings(
        folder,
        graph,
        6,
        timing=QUICK,
        log=folder / "child.log",
    )


def _uniform(graph: ModelGraph, fmt: str) -> Allocation:
    return Allocation.uniform([layer.name for layer in graph.quantizable], fmt)


def _child() -> int:
    """Process id of the evaluating child (multiprocessing's resource tracker is a child too)."""
    return next(p.pid for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline()))


def test_scores_of_reference_and_scheme(graph: ModelGraph, settings: EvaluatorSettings) -> None:
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
        first = evaluator.evaluate(_uniform(graph, "w8a16"), reference)
        again = evaluator.evaluate(_uniform(graph, "w8a16"), reference)
    assert reference.accuracy.map_50_95 > 0.8 and reference.size.average_weight_bits == 32.0
    assert isinstance(first, Scores) and isinstance(again, Scores)
    assert first.accuracy == again.accuracy and first.artifact == again.artifact
    assert first.latency is not None and first.latency.ratio > 0
    assert first.latency_ms == pytest.approx(reference.latency_ms * first.latency.ratio)
    assert 0.8 < first.agreement <= 1.0
    assert set(first.seconds) == {"materialize", "build", "evaluate", "time"}
    assert settings.predictions is not None
    kept = load_predictions(settings.predictions / f"{_uniform(graph, 'w8a16').digest}.npz")
    assert kept is not None and score(settings.dataset, kept) == first.accuracy


@pytest.mark.parametrize("strict", [False, True])
def test_noise_is_kept_and_marked_unless_the_user_set_the_bound(
    graph: ModelGraph, settings: EvaluatorSettings, strict: bool
) -> None:
    """No two real inferences take the same time to a part in a billion."""
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
    timing = dataclasses.replace(QUICK, max_cov=1e-9, strict=strict)
    with Evaluator(dataclasses.replace(settings, timing=timing)) as evaluator:
        results = [evaluator.evaluate(_uniform(graph, "int8"), reference)]
        if strict:
            with pytest.raises(InputError, match=r"varies by .* timing\.max_cov"):
                evaluator.reference()
        else:
            results.append(evaluator.reference())
        timed = evaluator.time(_uniform(graph, "w8a16"))
    for result in results:
        if strict:
            assert isinstance(result, Failure) and result.kind == "unstable"
            continue
        assert isinstance(result, Scores) and result.latency is not None and result.latency.noisy
        low, high = result.latency.interval or (0, 0)
        assert 0 < low <= result.latency.ratio <= high
    assert isinstance(timed, Failure) == strict


def test_an_unknown_layer_is_a_failure_and_the_child_lives_on(graph: ModelGraph, settings: EvaluatorSettings) -> None:
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
        failed = evaluator.evaluate(Allocation.of({"/nothing": "int8"}), reference)
        child = _child()
        assert isinstance(failed, Failure) and failed.kind == "build" and "/nothing" in failed.message
        assert isinstance(evaluator.evaluate(_uniform(graph, "int8"), reference), Scores)
        assert _child() == child


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGSEGV, "crash"), (signal.SIGKILL, "memory")])
def test_a_dead_child_is_a_failure_and_the_next_call_starts_another(
    graph: ModelGraph, settings: EvaluatorSettings, number: signal.Signals, kind: str
) -> None:
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
        os.kill(_child(), number)
        failed = evaluator.evaluate(_uniform(graph, "int8"), reference)
        if isinstance(failed, Failure):  # the death was seen only on use
            assert failed.kind == kind and number.name in failed.message
        assert isinstance(evaluator.evaluate(_uniform(graph, "int8"), reference), Scores)


def test_a_hang_is_a_timeout(graph: ModelGraph, settings: EvaluatorSettings) -> None:
    with Evaluator(settings) as evaluator:
        reference = evaluator.reference()
    hasty = settings.runtime.model_copy(update={"limit_s": 0.05})
    with Evaluator(dataclasses.replace(settings, runtime=hasty)) as evaluator:
        failed = evaluator.evaluate(_uniform(graph, "int8"), reference)
    assert isinstance(failed, Failure) and failed.kind == "timeout"
    assert not [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_memory_beyond_the_limit_is_a_failure(
    graph: ModelGraph, settings: EvaluatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_MEMORY_GIB", "0.02")  # less than the interpreter and its libraries take
    with Evaluator(settings) as evaluator, pytest.raises(InputError, match=r"0\.0 GiB is the limit"):
        evaluator.reference()
