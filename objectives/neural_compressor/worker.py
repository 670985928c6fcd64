"""Runs inside Intel Neural Compressor's own environment, and imports nothing of the tuner.

Neural Compressor 2.x, the last line with an ONNX Runtime adaptor, wants numpy < 2 and an older onnx. The tuner starts
this file with that environment's Python, hands it a request as a JSON file, and scores models when asked: each line on
stdout is a JSON object for the tuner, each line on stdin its answer.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from neural_compressor import PostTrainingQuantConfig, quantization
from neural_compressor.adaptor.onnxrt import ONNXRUNTIMEAdaptor
from neural_compressor.config import AccuracyCriterion, TuningCriterion

Request = dict[str, Any]
_FP32 = {"activation": {"dtype": "fp32", "quant_mode": "fp32"}, "weight": {"dtype": "fp32"}}


class _Images:
    """A dataloader over an array of images, (n, 3, H, W) uint8, one by one as the model takes them, float32."""

    batch_size = 1

    def __init__(self, request: Request) -> None:
        self._pixels = np.load(request["pixels"], mmap_mode="r")
        self._divisor = np.float32(request["feed"]["divisor"])
        self._mean, self._std = (np.array(request["feed"][key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))

    def __len__(self) -> int:
        return len(self._pixels)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        for image in self._pixels:
            yield (image[None].astype(np.float32) / self._divisor - self._mean) / self._std, 0


class _Channel:
    """JSON lines to and from the tuner; whatever else prints goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, **message: object) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def ask(self, **message: object) -> Any:
        self.send(**message)
        return json.loads(sys.stdin.readline())


_UNQUANTIZED = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}


def tune(request: Request, channel: _Channel) -> None:
    """Neural Compressor's accuracy-driven flow: quantize, have it scored, fall back operators, within a few trials."""
    count = 0

    def score(model: Any) -> float:
        nonlocal count
        path = str(Path(request["folder"]) / f"trial{count}.onnx")
        onnx.save(getattr(model, "model", model), path)
        count += 1
        return float(channel.ask(score=path)["accuracy"])

    started = time.perf_counter()
    model = quantization.fit(
        request["model"],
        PostTrainingQuantConfig(
            approach="static",
            quant_format="QDQ",
            quant_level=1,
            calibration_sampling_size=[request["images"]],
            op_name_dict={name: _UNQUANTIZED for name in request["excluded"]},
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=request["tolerable_loss"]),
            tuning_criterion=TuningCriterion(strategy=request["strategy"], max_trials=request["trials"]),
        ),
        calib_dataloader=_Images(request),
        eval_func=score,
    )
    out = ""
    if model is not None:
        out = str(Path(request["folder"]) / "int8.onnx")
        onnx.save(model.model, out)
    channel.send(done=True, model=out, trials=count - 1, seconds=time.perf_counter() - started)


def sensitivity(request: Request, channel: _Channel) -> None:
    """Mean squared error of the outputs with one operator quantized at a time, by the adaptor that MSE_V2 asks."""
    seen: dict[str, Any] = {}
    quantize = ONNXRUNTIMEAdaptor.quantize

    def remember(self: Any, tune_cfg: Any, model: Any, data_loader: Any, q_func: Any = None) -> Any:
        if not seen:  # without an eval_func it quantizes its model in place
            seen["call"] = self, copy.deepcopy(tune_cfg), copy.deepcopy(self.pre_optimized_model or model)
        return quantize(self, tune_cfg, model, data_loader, q_func)

    ONNXRUNTIMEAdaptor.quantize = remember
    images = _Images(request)
    conf = PostTrainingQuantConfig(
        approach="static", quant_format="QDQ", quant_level=1, calibration_sampling_size=[request["images"]]
    )
    quantization.fit(request["model"], conf, calib_dataloader=images)
    ONNXRUNTIMEAdaptor.quantize = quantize
    if "call" not in seen:
        raise RuntimeError("Neural Compressor quantized nothing")
    adaptor, config, model = seen["call"]
    adaptor.pre_optimized_model, adaptor.performance_only = model, False  # each time a copy of this one
    wanted = set(request["layers"])
    own = {op: setting for op, setting in config["op"].items() if op[0] in wanted}
    config["op"] = {op: copy.deepcopy(_FP32) for op in config["op"]}
    outputs = adaptor.get_output_op_names(model)
    reference = adaptor._inference_model_on_batches(model, config, images, outputs, request["images"])
    for op, setting in own.items():
        started = time.perf_counter()
        config["op"][op] = setting
        quantized = adaptor.quantize(config, model, images)
        found = adaptor._inference_model_on_batches(quantized, config, images, outputs, request["images"])
        config["op"][op] = copy.deepcopy(_FP32)
        error = float(adaptor._calculate_mse(reference, found))
        channel.send(layer=op[0], score=error, seconds=time.perf_counter() - started)
    channel.send(done=True)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    {"tune": tune, "sensitivity": sensitivity}[given["task"]](given, _Channel())
