"""The one way to choose what a study's schemes are compared with: the unquantized model as its runtime runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from objectives.quantization.materialize import Materializer
from objectives.runtimes.runtime import Runtime
from search_spaces.allocation import Allocation
from search_spaces.formats import UNQUANTIZED
from search_spaces.model_graph import ModelGraph


def reference_model(runtime: Runtime, graph: ModelGraph, materializer: Callable[[], Materializer]) -> bytes | Path:
    """The unquantized model as `Runtime.open` takes it.

    Args:
        runtime: Where it runs.
        graph: The model, at the study's batch.
        materializer: Makes its schemes; asked where the reference is one of them.

    Returns:
        Its file where that serves, else serialized ONNX.
    """
    if runtime.reference_is_scheme:
        layers = [layer.name for layer in graph.quantizable]
        return materializer().materialize(Allocation.uniform(layers, UNQUANTIZED)).engine_model
    return runtime.file_model(graph)
