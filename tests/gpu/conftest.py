"""What every GPU test needs: TensorRT and a GPU, else the reason why it is skipped; one cache for all of them.

``TUNER_TEST_TACTICS`` names the tactic sources, comma-separated, where TensorRT came without cuDNN and cuBLAS.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_detectors import build_detector, evaluator_settings

from objectives.evaluation.settings import EvaluatorSettings
from objectives.latency import TimingProtocol
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.tensorrt.runtime import TensorRt
from objectives.runtimes.tensorrt.settings import TensorRtSettings
from search_spaces.model_graph import ModelGraph


@pytest.fixture(scope="session")
def builder() -> TensorRtSettings:
    tactics = os.environ.get("TUNER_TEST_TACTICS")
    settings = TensorRtSettings(optimization_level=1, tactic_sources=tactics.split(",") if tactics else None)
    try:
        TensorRt(settings).check()
    except RuntimeUnavailable as error:
        pytest.skip(str(error))
    return settings


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Engines of the tests, apart from the user's."""
    folder = Path(os.environ.get("TUNER_TEST_CACHE") or tmp_path_factory.mktemp("cache"))
    before = os.environ.get("TUNER_CACHE")
    os.environ["TUNER_CACHE"] = str(folder)
    yield folder
    os.environ.pop("TUNER_CACHE")
    if before is not None:
        os.environ["TUNER_CACHE"] = before


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return ModelGraph(build_detector(tmp_path_factory.mktemp("model") / "m.onnx", "end_to_end"))


@pytest.fixture(scope="session")
def settings(
    graph: ModelGraph, builder: TensorRtSettings, tmp_path_factory: pytest.TempPathFactory
) -> EvaluatorSettings:
    folder = tmp_path_factory.mktemp("data")
    return evaluator_settings(
        folder,
        graph,
        6,
        runtime=builder,
        timing=TimingProtocol(warmup_ms=50, min_seconds=0.3, min_iterations=100, max_cov=0.1),
        engines=folder / "engines",
        failures=folder / "failures",
        log=folder / "child.log",
    )


@pytest.fixture(scope="session")
def runtime(builder: TensorRtSettings) -> TensorRt:
    return TensorRt(builder)
