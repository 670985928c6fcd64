"""Triton: the configuration passes Triton's own schema and says of the tensors what the model says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from shipments import shipment_of
from tiny_detectors import build_detector

from objectives.runtimes.loader import Loader
from search_spaces.errors import InputError
from tuner.results.targets.target import Shipment
from tuner.results.targets.triton import Triton, config

text_format = pytest.importorskip("google.protobuf.text_format")
schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's own schema: the dev extra has it")


def _read(files: dict[str, bytes]):
    found = schema.ModelConfig()
    text_format.Parse(files["mine/config.pbtxt"].decode(), found)
    return found


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("runtime", "backend", "file"),
    [
        ("onnxruntime-cpu", "onnxruntime", "model.onnx"),
        ("onnxruntime-cuda", "onnxruntime", "model.onnx"),
        ("openvino", "openvino", "model.xml"),
        ("tensorrt", "tensorrt", "model.plan"),
    ],
)
@pytest.mark.parametrize("layout", ["scores", "end_to_end", "torchvision"])
def test_the_schema_accepts_it(tmp_path: Path, runtime: str, backend: str, file: str, layout: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", layout), runtime)
    laid = Triton().lay_out(shipment)
    found, graph = _read(dict(laid.files)), shipment.model.graph
    assert (found.name, found.backend, found.max_batch_size) == ("mine", backend, 0)
    assert found.default_model_filename == file
    assert (f"mine/1/{file}" in laid.files) or (runtime == "tensorrt" and "trtexec" in "".join(laid.notes))
    for theirs, ours in ((found.input, graph.input), (found.output, graph.output)):
        assert [tensor.name for tensor in theirs] == [value.name for value in ours]
        assert [list(tensor.dims) for tensor in theirs] == [_dims(value) for value in ours]
    assert schema.DataType.Name(found.input[0].data_type) == "TYPE_FP32"
    gpu = runtime in ("tensorrt", "onnxruntime-cuda")
    assert found.instance_group[0].kind == (
        schema.ModelInstanceGroup.KIND_GPU if gpu else schema.ModelInstanceGroup.KIND_CPU
    )
    if runtime == "onnxruntime-cpu":
        assert found.parameters["intra_op_thread_count"].string_value == "1"


def test_openvino_names_the_tensors_as_the_configuration_does(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    laid = Triton().lay_out(shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"), "openvino"))
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).write_bytes(laid.files[f"mine/1/{name}"])
    model, found = openvino.Core().read_model(tmp_path / "model.xml"), _read(dict(laid.files))
    for theirs, ours in ((found.input, model.inputs), (found.output, model.outputs)):
        assert [tensor.name in value.get_names() for tensor, value in zip(theirs, ours, strict=True)] == [True] * len(
            ours
        )
        assert [list(tensor.dims) for tensor in theirs] == [list(value.shape) for value in ours]


def test_a_batch_stands_in_whole_shapes(tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx", "scores", dynamic_batch=True)
    found = _read(dict(Triton().lay_out(shipment_of(tmp_path, model, batch=4)).files))
    assert found.max_batch_size == 0 and found.input[0].dims[0] == found.output[0].dims[0] == 4


def test_odd_names_and_scalars_survive(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"))
    graph = shipment.model.graph
    odd = 'a "b"\\c\t\u00e9'
    scalar = onnx.helper.make_tensor_value_info(odd, onnx.TensorProto.INT64, [])
    graph.output.append(scalar)
    output = _read({"mine/config.pbtxt": config(shipment, Loader.ONNXRUNTIME).encode()}).output[-1]
    assert output.name == odd and list(output.dims) == [1] and output.HasField("reshape")
    graph.output[-1].type.tensor_type.elem_type = onnx.TensorProto.COMPLEX64
    with pytest.raises(InputError, match="COMPLEX64, which Triton does not have"):
        config(shipment, Loader.ONNXRUNTIME)


def test_a_runtime_that_triton_does_not_have_is_refused(tmp_path: Path) -> None:
    shipment: Shipment = shipment_of(
        tmp_path, build_detector(tmp_path / "m.onnx", "scores"), "tensorrt-rtx", compute_capability="8.9"
    )
    with pytest.raises(InputError, match="--for triton: does not load what was made for TensorRT-RTX"):
        Triton().lay_out(shipment)
