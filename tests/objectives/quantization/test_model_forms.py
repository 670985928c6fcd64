"""Networks in every form that exporters give them, as every dialect writes them: they load, run and stay close."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS, TRT8
from odd_models import ROUTES, Form, build

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS
from search_spaces.model_graph import ModelGraph

#: Largest error, as a share of the largest output, of random networks of up to six layers.
_BOUNDS = {"w8a16": 0.05, "int8": 0.15}


def _check(path: Path, form: Form, seed: int) -> None:
    random = np.random.default_rng(seed)
    build(path, form, lambda n: int(random.integers(n)), seed)
    graph = ModelGraph(path)
    image = random.random((1, 3, 8, 8), dtype=np.float32)
    with OnnxRuntimeRunner(graph.model.SerializeToString()) as runner:
        expected = runner.infer(image)[0]
    table = calibrate(graph, [image], "max", threads=1)
    for name, dialect in DIALECTS.items():
        if dialect is TRT8 and form.opset > 17:
            continue  # onnx has no way down for every operator
        materializer = Materializer(graph, table, dialect)
        for fmt, bound in _BOUNDS.items():
            allocation = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
            artifact = materializer.materialize(allocation)
            artifact.check()
            _check_names(onnx.load_model_from_string(artifact.data))
            with OnnxRuntimeRunner(artifact.data) as runner:
                found = runner.infer(image)[0]
            assert np.abs(found - expected).max() <= bound * np.abs(expected).max(), (name, fmt)


def _check_names(model: onnx.ModelProto) -> None:
    graph = model.graph
    tensors = [t.name for t in graph.initializer] + [name for node in graph.node for name in node.output if name]
    assert len(set(tensors)) == len(tensors)
    assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("opset", range(11, 24))
def test_every_opset(tmp_path: Path, opset: int) -> None:
    _check(tmp_path / "m.onnx", Form(opset=opset, routes=ROUTES), opset)


@pytest.mark.parametrize("wrap", ["function", "nested", "if"])
@pytest.mark.parametrize("seed", range(2))
def test_every_wrapping(tmp_path: Path, wrap: str, seed: int) -> None:
    _check(tmp_path / "m.onnx", Form(wrap=("", wrap)), seed)


@pytest.mark.parametrize("names", ["none", "same", "taken"])
@pytest.mark.parametrize("seed", range(3))
def test_names_never_collide(tmp_path: Path, names: str, seed: int) -> None:
    _check(tmp_path / "m.onnx", Form(names=names, opset=13 + seed * 4, routes=ROUTES[seed:]), seed)


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_stands_beside_names_that_are_taken(tmp_path: Path, fmt: str) -> None:
    random = np.random.default_rng(0)
    build(tmp_path / "m.onnx", Form(names="taken"), lambda n: int(random.integers(n)))
    graph = ModelGraph(tmp_path / "m.onnx")
    image = random.random((1, 3, 8, 8), dtype=np.float32)
    table = calibrate(graph, [image], "max", threads=1)
    for dialect in DIALECTS.values():
        if not dialect.refuses(FORMATS[fmt]):
            allocation = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
            artifact = Materializer(graph, table, dialect).materialize(allocation)
            artifact.check()
            _check_names(onnx.load_model_from_string(artifact.data))
