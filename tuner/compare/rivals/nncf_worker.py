"""Quantizes an ONNX model with NNCF, in an environment that has NNCF and nothing of this project.

python nncf_worker.py request.json

What NNCF prints goes to stderr. On stdout stand questions, one JSON object a line: how good is this model on these
images? The answer, a number, is read from stdin.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_questions = os.fdopen(os.dup(sys.stdout.fileno()), "w")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

import nncf  # noqa: E402 - it takes hold of stdout when it is imported


def quantize(request: dict[str, Any]) -> None:
    """As NNCF's users do for detectors: asymmetric activations, box decoding left alone."""
    pixels, feed = np.load(request["pixels"], mmap_mode="r"), request["feed"]
    mean, std = (np.array(feed[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))

    def fed(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {request["input"]: (image[None].astype(np.float32) / np.float32(feed["divisor"]) - mean) / std}

    model, images = onnx.load(request["model"]), nncf.Dataset(list(pixels), fed)
    how = {
        "preset": nncf.QuantizationPreset.MIXED,
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(pixels),
        "fast_bias_correction": request["fast"],
        "ignored_scope": nncf.IgnoredScope(names=request["ignored"], validate=False),
    }
    if "most" in request:
        scored = nncf.Dataset(list(range(request["scored"])))
        how |= {"max_drop": request["most"] / 100, "drop_type": nncf.DropType.ABSOLUTE}
        made = nncf.quantize_with_accuracy_control(model, images, scored, _Asked(Path(request["asked"])), **how)
    else:
        made = nncf.quantize(model, images, **how)
    spell_unsigned(made)
    onnx.save(made, request["out"])


class _Asked:
    """NNCF's `validation_fn`: has whoever started this process score a model.

    Args:
        path: Where the model is put for that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""

    def __call__(self, model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, None]:
        data = model.SerializeToString()
        new = data != self._last
        if new:
            self._path.write_bytes(data)
            self._last = data
        question = {"model": str(self._path), "new": new, "rows": [int(item) for item in items]}
        print(json.dumps(question), file=_questions, flush=True)
        return float(sys.stdin.readline()), None


def spell_unsigned(model: onnx.ModelProto) -> None:
    """Has activations counted from 0 instead of -128, which changes no value, in place.

    OpenVINO 2026.4 computes something else from signed activations with zero points behind a Split (yolov8n: mAP 0.0006
    instead of 0.3624).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    codes: set[str] = set()
    for node in graph.node:
        makes = node.op_type == "QuantizeLinear"
        if not (makes or (node.op_type == "DequantizeLinear" and node.input[0] in made)) or len(node.input) < 3:
            continue
        zero = constants.get(node.input[2])
        if zero is None or zero.data_type != TensorProto.INT8:
            continue
        name = f"{zero.name}_unsigned"
        if name not in constants:
            moved = numpy_helper.to_array(zero).astype(np.int16) + 128
            constants[name] = numpy_helper.from_array(moved.astype(np.uint8), name)
            graph.initializer.append(constants[name])
        node.input[2] = name
        codes.update(node.output[:1] if makes else ())
    for value in graph.value_info:
        if value.name in codes:
            value.type.tensor_type.elem_type = TensorProto.UINT8


if __name__ == "__main__":
    quantize(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
