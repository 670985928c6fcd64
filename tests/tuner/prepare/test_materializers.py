"""Which model is the reference, and what comparisons run on."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from objectives.quantization.materialize import Materializer
from objectives.runtimes.reference import reference_model
from search_spaces.allocation import Allocation
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.materializers import batched_graph, float_materializer, make_materializer
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def _none() -> Materializer:
    raise AssertionError("the model's file serves")


def test_the_reference_is_the_file_itself_at_one_image(read: Read) -> None:
    inputs = read()
    assert batched_graph(inputs.graph, 1) is inputs.graph
    assert reference_model(inputs.runtime, inputs.graph, _none) == inputs.graph.path


def test_the_reference_takes_the_batch_of_the_study(read: Read) -> None:
    inputs = read("runtime.batch=3")
    model = onnx.load_model_from_string(reference_model(inputs.runtime, batched_graph(inputs.graph, 3), _none))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_comparisons_run_on_what_the_artifact_holds(read: Read, run: RunFolder) -> None:
    inputs = read("weights.method=rtn")
    table = ensure_calibration(inputs, run)
    scheme = Allocation.uniform([layer.name for layer in inputs.graph.quantizable], "int8")
    own = make_materializer(inputs.config, inputs.graph, table, {}).materialize(scheme)
    compared = float_materializer(inputs, inputs.graph, table, {}).materialize(scheme)
    assert own.data == compared.data  # ONNX Runtime's dialect is one in float32
