"""Networks in every form that exporters give them, as every dialect writes them: they load, run and stay close."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from dialects import DIALECTS, TRT8
from odd_models import ROUTES, Form, build
from onnx import TensorProto, helper, numpy_helper

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import recover
from objectives.quantization.weights import WeightSettings
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
            fit = [layer.name for layer in graph.quantizable if not layer.lacks(FORMATS[fmt])]
            allocation = Allocation.uniform(fit, fmt)
            artifact = Materializer(graph, table, dialect).materialize(allocation)
            artifact.check()
            _check_names(onnx.load_model_from_string(artifact.data))


def _save(path: Path, nodes: list, shapes: dict, output: list, domains: tuple = (), **values: np.ndarray) -> Path:
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()} | values
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def _loop() -> onnx.NodeProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["state", "again"], ["next"], name="again", pads=[1] * 4),
            helper.make_node("Identity", ["going"], ["on"], name="on"),
        ],
        "body",
        [value("count", TensorProto.INT64, []), value("going", TensorProto.BOOL, []),
         value("state", TensorProto.FLOAT, [1, 4, 8, 8])],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1, 4, 8, 8])],
    )  # fmt: skip
    return helper.make_node("Loop", ["times", "yes", "a"], ["b"], name="loop", body=body)


FIRST = helper.make_node("Conv", ["images", "first"], ["a"], name="first", pads=[1] * 4)
LAST = helper.make_node("Conv", ["b", "last"], ["y"], name="last")
SHAPES = {"first": (4, 3, 3, 3), "last": (2, 4, 1, 1)}
KINDS: dict[str, tuple[list, dict, list, tuple, dict]] = {
    "an operator of another domain": (
        [FIRST, helper.make_node("QuickGelu", ["a"], ["b"], name="act", domain="com.microsoft"), LAST],
        SHAPES, [1, 2, 8, 8], ("com.microsoft",), {},
    ),
    "optional outputs by empty names": (
        [FIRST, helper.make_node("MaxPool", ["a"], ["p", ""], name="pool", kernel_shape=[3, 3]),
         helper.make_node("Dropout", ["p"], ["b", ""], name="drop"), LAST],
        SHAPES, [1, 2, 6, 6], (), {},
    ),
    "optional inputs by empty names": (
        [FIRST, helper.make_node("Resize", ["a", "", "by"], ["r"], name="resize", mode="nearest"),
         helper.make_node("Clip", ["r", "", "most"], ["b"], name="clip"), LAST],
        SHAPES, [1, 2, 16, 16], (), {"by": np.float32([1, 1, 2, 2]), "most": np.float32(1)},
    ),
    "a loop around a layer": (
        [FIRST, _loop(), LAST], SHAPES | {"again": (4, 4, 3, 3)}, [1, 2, 8, 8], (),
        {"times": np.array(2), "yes": np.array(True)},
    ),
    "a convolution over one dimension": (
        [helper.make_node("Reshape", ["images", "flat"], ["a"], name="flat"),
         helper.make_node("Conv", ["a", "w", "bias"], ["y"], name="first")],
        {"w": (4, 3, 5), "bias": (4,)}, [1, 4, 60], (), {"flat": np.array([1, 3, 64])},
    ),
    "a convolution over three dimensions": (
        [helper.make_node("Unsqueeze", ["images", "depth"], ["a"], name="deep"),
         helper.make_node("Conv", ["a", "w", "bias"], ["y"], name="first")],
        {"w": (4, 3, 1, 3, 3), "bias": (4,)}, [1, 4, 1, 6, 6], (), {"depth": np.array([2])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_models(tmp_path: Path, kind: str) -> None:
    nodes, shapes, output, domains, values = KINDS[kind]
    path = _save(tmp_path / "m.onnx", nodes, shapes, output, domains, **values)
    graph = ModelGraph(path)
    image = np.random.default_rng(1).random((1, 3, 8, 8), dtype=np.float32)
    with OnnxRuntimeRunner(path) as runner:
        expected = runner.infer(image)[0]
    table = calibrate(graph, [image], "max", threads=1)
    settings = WeightSettings("auto")
    for fmt in ("int8", "w4a16"):
        wanted = [(layer, FORMATS[fmt]) for layer in graph.quantizable if settings.recovers(layer, FORMATS[fmt])]
        recovered = recover(graph, lambda: [image], wanted, settings, threads=1) if wanted else {}
        for dialect in DIALECTS.values():
            allocation = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
            artifact = Materializer(graph, table, dialect, settings, recovered).materialize(allocation)
            artifact.check()
            with OnnxRuntimeRunner(artifact.data) as runner:
                found = runner.infer(image)[0]
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert error < (0.06 if fmt == "int8" else 0.2), (fmt, dialect.name)
