"""Which model is the reference, and which dialect a scheme is written in."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from tuner.prepare.targets import float_dialect, has_engines, materializer_dialect

from search_spaces.allocation import Allocation
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.materializers import batched_graph, float_materializer, make_materializer, reference_model
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def test_the_reference_is_the_file_itself_at_one_image(read: Read) -> None:
    inputs = read()
    assert batched_graph(inputs.graph, 1) is inputs.graph
    assert reference_model(inputs.config, inputs.graph) == inputs.graph.path


def test_the_reference_takes_the_batch_of_the_study(read: Read) -> None:
    inputs = read("runtime.batch=3")
    model = onnx.load_model_from_string(reference_model(inputs.config, batched_graph(inputs.graph, 3)))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_comparisons_run_on_what_the_artifact_holds(read: Read, run: RunFolder) -> None:
    inputs = read("weights.method=rtn")
    table = ensure_calibration(inputs, run)
    scheme = Allocation.uniform([layer.name for layer in inputs.graph.quantizable], "int8")
    own = make_materializer(inputs.config, inputs.graph, table, {}).materialize(scheme)
    compared = float_materializer(inputs, inputs.graph, table, {}).materialize(scheme)
    assert own.data == compared.data  # ONNX Runtime's dialect is one in float32


@pytest.mark.parametrize(
    ("runtime", "version", "own", "plain", "with_float8"),
    [
        ("onnxruntime-cpu", None, "onnxruntime-cpu", "onnxruntime-cpu", "onnxruntime-cpu"),
        ("tensorrt", "8.6.1", "tensorrt-8", "tensorrt-8", None),
        ("tensorrt", "10.3", "tensorrt", "tensorrt-8", None),
    ],
)
def test_dialects(runtime: str, version: str | None, own: str, plain: str, with_float8: str | None) -> None:
    assert materializer_dialect(runtime, version) == own
    assert float_dialect(runtime, float8=False) == plain
    if with_float8 is not None:
        assert float_dialect(runtime, float8=True) == with_float8
    assert has_engines(runtime) == (runtime == "tensorrt")
