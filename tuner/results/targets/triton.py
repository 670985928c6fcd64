"""NVIDIA Triton Inference Server: a model repository.

Keys are those of ``model_config.proto`` of Triton's common repository; parameters those that each backend documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import onnx

from objectives.runtimes.loader import Loader
from search_spaces.errors import InputError
from tuner.results.targets.target import Laid, Shipment

#: Name of the backend, of the platform where the backend has one, and of the file that it looks for.
_BACKENDS = {
    Loader.ONNXRUNTIME: ("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    Loader.TENSORRT: ("tensorrt", "tensorrt_plan", "model.plan"),
    Loader.OPENVINO: ("openvino", "", "model.xml"),
}
_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.BFLOAT16: "TYPE_BF16",
    onnx.TensorProto.DOUBLE: "TYPE_FP64",
    onnx.TensorProto.INT8: "TYPE_INT8",
    onnx.TensorProto.INT16: "TYPE_INT16",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
}


class Triton:
    """A model repository with one model."""

    title: ClassVar[str] = "Triton Inference Server"

    def lay_out(self, shipment: Shipment) -> Laid:
        """As `Target` says."""
        loader = shipment.loaded_by("triton", *_BACKENDS)
        name, (backend, _, file) = shipment.name, _BACKENDS[loader]
        own = shipment.files.get(loader.value)
        files = {f"{name}/config.pbtxt": config(shipment, loader).encode()}
        notes, build = [], ""
        if own is not None:
            files[f"{name}/1/{file}"] = own
        elif loader is Loader.TENSORRT:
            build = shipment.build_command.replace(loader.value, f"{name}/1/{file}")
            files |= {n: data for n, data in shipment.files.items() if n.endswith(".onnx")}
            notes.append(f"{name}/1/{file} is not here: build it on the GPU that serves it: {build}")
        else:
            raise InputError(
                f"--for triton: {loader.value} cannot be made here: {shipment.runtime.title} is not installed; "
                "install it, `tuner doctor` says how"
            )
        if loader is Loader.OPENVINO:
            files[f"{name}/1/model.bin"] = shipment.files["model.bin"]
            notes.append(
                "Triton's OpenVINO backend has no key for the precision of floats: a CPU with bf16 units computes in "
                "bf16, whatever was measured"
            )
        usage = [
            f"The folder is a model repository with the model `{name}`, for the backend `{backend}`:",
            "",
            "```sh",
            "docker run --rm -p 8000:8000 -p 8001:8001 -v $PWD:/models \\",
            "    nvcr.io/nvidia/tritonserver:<release>-py3 tritonserver --model-repository=/models",
            "```",
            "",
        ]
        if build:
            usage += ["The engine is built first, with the TensorRT of that image, on the GPU that serves it:", ""]
            usage += ["```sh", build, "```", ""]
        elif loader is Loader.TENSORRT:
            usage += ["An engine runs on its own kind of GPU and with its own version of TensorRT only.", ""]
        plural = "s" if shipment.batch > 1 else ""
        usage += [
            f"The model takes {shipment.batch} image{plural} at a time, so `max_batch_size` is 0 and shapes are whole."
        ]
        onnx_file = f"{name}/1/{file}" if loader is Loader.ONNXRUNTIME else ""
        return Laid(files, "\n".join(usage) + "\n", onnx_file or ("model.onnx" if build else ""), tuple(notes))


def config(shipment: Shipment, loader: Loader) -> str:
    """Returns the text of ``config.pbtxt``.

    Args:
        shipment: The scheme; names, types and shapes are its model's.
        loader: What loads it.

    Raises:
        InputError: A tensor is of a type that Triton does not have, or of an unknown rank.
    """
    backend, platform, file = _BACKENDS[loader]
    graph, kind = shipment.model.graph, "KIND_GPU" if shipment.runtime.gpu else "KIND_CPU"
    lines = [f"name: {_text(shipment.name)}", f"backend: {_text(backend)}"]
    lines += [f"platform: {_text(platform)}"] if platform else []
    lines += [f"default_model_filename: {_text(file)}", "max_batch_size: 0"]
    lines += _tensors("input", graph.input[:1]) + _tensors("output", graph.output)
    lines += [f"instance_group [ {{ count: 1 kind: {kind} }} ]"]
    lines += [
        f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"
        for key, value in shipment.runtime.server_parameters().items()
    ]
    return "\n".join(lines) + "\n"


def _tensors(field: str, values: Sequence[onnx.ValueInfoProto]) -> list[str]:
    entries = []
    for value in values:
        kind = value.type.tensor_type
        if kind.elem_type not in _TYPES:
            named = onnx.TensorProto.DataType.Name(kind.elem_type)
            raise InputError(f"--for triton: tensor {value.name!r} is of type {named}, which Triton does not have")
        if not kind.HasField("shape"):
            raise InputError(f"--for triton: the model does not say how many axes {value.name!r} has; export it again")
        dims = [dim.dim_value or -1 for dim in kind.shape.dim]
        reshape = "" if dims else " reshape { shape: [] }"
        entries.append(
            f"  {{ name: {_text(value.name)} data_type: {_TYPES[kind.elem_type]} dims: {dims or [1]}{reshape} }}"
        )
    return [f"{field} [", ",\n".join(entries), "]"]


def _text(value: str) -> str:
    """A string of protobuf's text format; that of JSON is one, as all beyond ASCII is given in UTF-8."""
    return json.dumps(value, ensure_ascii=False)
