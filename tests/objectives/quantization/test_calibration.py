from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.histogram import METHODS, Histogram
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph


def _histogram(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


def _image(seed: int, graph: ModelGraph) -> np.ndarray:
    return np.random.default_rng(seed).random(graph.input_shape, dtype=np.float32)


def test_the_range_grows_both_ways_and_keeps_its_counts() -> None:
    draw = np.random.default_rng(0)
    parts = [draw.normal(0, scale, 5000) for scale in (0.01, 1.0, 30.0)]
    histogram = _histogram(*parts)
    everything = np.concatenate(parts).astype(np.float32)
    assert histogram.range("max") == (float(everything.min()), float(everything.max()))
    assert histogram.counts.sum() == pytest.approx(everything.size)
    median = histogram.centres[np.searchsorted(np.cumsum(histogram.counts), everything.size / 2)]
    assert abs(median - np.median(everything)) <= histogram.width


@pytest.mark.parametrize("method", METHODS)
def test_every_method_contains_zero_and_stays_inside_the_extremes(method: str) -> None:
    for values in (np.full(100, 3.0), np.full(100, -2.0), np.zeros(50), np.random.default_rng(1).normal(5, 1, 4000)):
        low, high = _histogram(values).range(method)
        assert low <= 0.0 <= high
        assert low >= min(values.min(), 0.0) - 1e-5 and high <= max(values.max(), 0.0) + 1e-5


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_outlier_is_clipped_and_the_bulk_is_not(method: str) -> None:
    bulk = np.random.default_rng(2).normal(0, 1, 400_000)
    low, high = _histogram(bulk, np.array([1000.0])).range(method)
    assert high < 500.0
    assert low < -2.0 and high > 2.0


def test_mse_is_no_worse_than_max_on_the_error_it_minimises() -> None:
    values = np.random.default_rng(3).laplace(0, 1, 60_000).astype(np.float32)
    histogram = _histogram(values)

    def error(bounds: tuple[float, float]) -> float:
        step = (bounds[1] - bounds[0]) / 255
        image = np.clip(np.round((values - bounds[0]) / step), 0, 255) * step + bounds[0]
        return float(((image - values) ** 2).mean())

    assert error(histogram.range("mse")) <= 1.02 * error(histogram.range("max"))


def test_not_finite_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        _histogram(np.array([1.0, np.nan]))


def test_calibrate_sees_every_activation_and_round_trips(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "end_to_end"))
    done: list[int] = []
    table = calibrate(graph, (_image(seed, graph) for seed in range(3)), "max", done.append)
    assert done == [1, 2, 3] and table.images == 3
    low, high = table.range(graph.input)
    assert low == 0.0 and 0.99 < high <= 1.0
    for layer in graph.quantizable:
        assert layer.output in table.ranges["max"]
    again = CalibrationTable.from_json(table.to_json())
    assert again.ranges == table.ranges and again.with_method("mse").range(graph.input)


def test_calibration_mistakes_are_named(tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "scores"))
    with pytest.raises(InputError, match="no image"):
        calibrate(graph, iter(()))
    with pytest.raises(InputError, match="did you mean 'entropy'"):
        calibrate(graph, iter(()), "entropi")
    with pytest.raises(InputError, match="not one of ours"):
        CalibrationTable.from_json('{"ranges": 3}')


@pytest.mark.filterwarnings("error")
def test_differences_beyond_single_precision_are_counted_right() -> None:
    histogram = _histogram(np.array([-3e38, -2e38]), np.array([3e38, 3e38]))
    assert histogram.range("max") == (pytest.approx(-3e38), pytest.approx(3e38))
    assert histogram.counts[histogram.centres > 2.9e38].sum() == 2
