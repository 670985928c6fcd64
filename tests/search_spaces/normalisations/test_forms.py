"""One network in every form that exporters give it: what is read computes what the file computes.

``TUNER_FUZZ=2000`` runs so many examples in place of a few dozen.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_models import ROUTES, Form, build

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.model_graph import ModelGraph

FORMS = st.builds(
    Form,
    opset=st.integers(11, 23),
    routes=st.lists(st.sampled_from(ROUTES), min_size=1, max_size=4).map(tuple),
    names=st.sampled_from(["own", "none", "same", "taken"]),
    wrap=st.lists(st.sampled_from(["", "function", "nested", "if"]), min_size=1, max_size=3).map(tuple),
)


def _run(model: bytes, image: np.ndarray) -> np.ndarray:
    with OnnxRuntimeRunner(model) as runner:
        return runner.infer(image)[0]


def _own(path: Path) -> bytes:
    """The file as it is, but for doubled node names, which ONNX Runtime refuses."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    return model.SerializeToString()


@settings(
    max_examples=int(os.environ.get("TUNER_FUZZ", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(FORMS, st.integers(0, 2**32 - 1))
@pytest.mark.timeout(3600)
def test_what_is_read_computes_what_the_file_computes(tmp_path: Path, form: Form, seed: int) -> None:
    random = np.random.default_rng(seed)
    path = tmp_path / "m.onnx"
    net = build(path, form, lambda n: int(random.integers(n)), seed)
    image = random.random((1, 3, 8, 8), dtype=np.float32)
    graph = ModelGraph(path)
    np.testing.assert_allclose(_run(graph.model.SerializeToString(), image), _run(_own(path), image), atol=1e-5)
    inside = [layer for layer in graph.layers if not layer.quantizable]
    assert len(inside) == net.inside and all("inside a branch or body of If" in str(x.reason) for x in inside)
    assert len(graph.quantizable) == net.layers - net.inside // 2
    assert not graph.model.functions and len(graph.model.graph.input) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_a_weight_is_found_on_every_route(tmp_path: Path, route: str) -> None:
    build(tmp_path / "a.onnx", Form(routes=(route,)), lambda n: 0)
    build(tmp_path / "b.onnx", Form(), lambda n: 0)
    found, direct = ModelGraph(tmp_path / "a.onnx"), ModelGraph(tmp_path / "b.onnx")
    for a, b in zip(found.quantizable, direct.quantizable, strict=True):
        assert a.name == b.name and a.weight_shape == b.weight_shape
        np.testing.assert_array_equal(found.initializers[a.weight], direct.initializers[b.weight])
