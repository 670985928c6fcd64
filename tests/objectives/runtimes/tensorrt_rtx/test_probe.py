"""A real builder refuses a format: the probe finds the layers, and keeps the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import build_detector

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.probing import LayerCosts, probe
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


class Builder:
    """Builds for compute capability 8.6, which has no fp8, and does not profile."""

    def __init__(self, graph: ModelGraph) -> None:
        image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
        table = calibrate(graph, [image], "max")
        self._materializer = Materializer(graph, table, STRONGLY_TYPED, WeightSettings("rtn"))
        self.failures = 0

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        from objectives.runtimes.tensorrt_rtx.build import build_engine

        try:
            build_engine(self._materializer.materialize(allocation).engine_model, (8, 6), allocation.formats)
        except BuildError as error:
            self.failures += 1
            return Failure("build", str(error), layer=error.layer)
        return LayerCosts({}, 0.0, "8.6", "1")


def test_unbuildable_pairs_are_removed_layer_by_layer(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "scores"))
    names = [layer.name for layer in graph.quantizable]
    builder, said = Builder(graph), list[str]()
    table = probe(builder, names, {"int8": names, "fp8": names[2:5]}, said.append)
    assert set(table.blocked.pairs) == {(name, "fp8") for name in names[2:5]}
    assert all("HW-specific datatypes: fp8" in reason for reason in table.blocked.pairs.values())
    assert builder.failures > 1 and len(said) == 3
    # What is left builds: a study goes on with it.
    assert isinstance(builder.costs(Allocation.uniform(names, "int8")), LayerCosts)
