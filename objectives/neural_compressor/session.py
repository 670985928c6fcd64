"""Starts Neural Compressor's worker in its own environment and answers it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx

from objectives.quantization.decoding import decoding
from objectives.runners.interpreter import environment
from objectives.runners.runner import RuntimeUnavailable
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from search_spaces.errors import InputError
from search_spaces.formats import Number, find_format
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from search_spaces.tools import within_memory

#: How the environment is made; Python 3.10 because Neural Compressor 2.6 and its pins have wheels for it.
INSTALL = (
    'python3.10 -m venv inc && inc/bin/pip install "neural-compressor==2.6" "numpy<2" "onnx==1.16.2" '
    '"onnxruntime==1.18.1" onnxruntime-extensions "setuptools<81"'
)
VARIABLE = "TUNER_INC_PYTHON"
FORMAT = find_format(Number.INT8, Number.INT8).name
METRIC = "mean squared error of boxes (fraction of the image) and class probabilities"
_WORKER = Path(__file__).with_name("worker.py")
_TAIL = 5


@dataclass(frozen=True)
class TuneSettings:
    """Bounds of Neural Compressor's accuracy-driven flow.

    Attributes:
        tolerable_loss: mAP50-95, absolute, in [0, 1], that it may lose.
        trials: Models that it may have scored, the first aside.
        strategy: Its tuning strategy.
    """

    tolerable_loss: float = 0.01
    trials: int = 3
    strategy: str = "basic"


@dataclass(frozen=True)
class Tuned:
    """What the flow ended with.

    Attributes:
        model: The quantized model, serialized; the best one scored where none was good enough.
        accepted: Whether it lost no more than it may.
        scores: mAP50-95 of every model that was scored, the unquantized one first.
        seconds: Wall time, scoring included.
        command: What was run.
    """

    model: bytes
    accepted: bool
    scores: tuple[float, ...]
    seconds: float
    command: tuple[str, ...]


def inc_python(named: str | None) -> Path:
    """Finds the interpreter of Neural Compressor's environment.

    Args:
        named: ``sensitivity.inc_python`` of a study; else the variable ``TUNER_INC_PYTHON`` tells.

    Raises:
        RuntimeUnavailable: It is not named, or Neural Compressor is not installed there.
    """
    code = "import neural_compressor, neural_compressor.adaptor.onnxrt; print(neural_compressor.__version__)"
    return environment(named, "sensitivity.inc_python", VARIABLE, code, INSTALL)


def inc_sensitivity(
    python: Path,
    graph: ModelGraph,
    detector: Detector,
    images: PreprocessedImages,
    progress: Callable[[int], None] | None = None,
) -> SensitivityTable:
    """Mean squared output error with one layer at a time in int8, as Neural Compressor quantizes it.

    Args:
        python: From `inc_python`.
        graph: The model.
        detector: Of this model.
        images: A few calibration images; they calibrate and score.
        progress: Called with the number of layers done.

    Returns:
        Scores of every quantizable layer in ``int8``.

    Raises:
        InputError: The model has no dense output to compare.
        RuntimeUnavailable: The worker failed; names its last lines.
    """
    layers = [layer.name for layer in graph.quantizable]
    entries: list[SensitivityEntry] = []
    with tempfile.TemporaryDirectory(prefix="tuner-inc-") as folder:
        model = Path(folder) / "dense.onnx"
        onnx.save(_dense_model(graph, detector), model)
        request = _request(folder, model, images, task="sensitivity", layers=layers)
        for message in _converse(python, request, Path(folder), lambda message: {}):
            if "layer" in message:
                entries.append(SensitivityEntry(message["layer"], FORMAT, message["score"], message["seconds"]))
                if progress is not None:
                    progress(len(entries))
    entries.sort(key=lambda entry: layers.index(entry.layer))
    missing = sorted(set(layers) - {entry.layer for entry in entries})
    settings = {"worker": "neural-compressor, ONNX Runtime adaptor", "calibration_images": images.digest}
    if missing:
        settings["not quantized by it"] = ", ".join(missing)
    return SensitivityTable("inc", METRIC, graph.digest, len(images), tuple(entries), settings)


def inc_tune(
    python: Path,
    graph: ModelGraph,
    images: PreprocessedImages,
    score: Callable[[Path], float],
    settings: TuneSettings,
) -> Tuned:
    """Runs Neural Compressor's int8 post-training flow; each model it makes is scored here.

    It is told to leave box decoding alone, as its users do: it would give boxes in pixels and probabilities one scale.

    Args:
        python: From `inc_python`.
        graph: The model.
        images: Calibration images.
        score: Accuracy of a model file, in [0, 1].
        settings: Bounds.

    Raises:
        RuntimeUnavailable: The worker failed; names its last lines.
    """
    scores: list[float] = []
    best = b""

    def answer(message: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal best
        path = Path(message["score"])
        scores.append(score(path))
        if len(scores) > 1 and scores[-1] == max(scores[1:]):  # the first is the unquantized model
            best = path.read_bytes()
        return {"accuracy": scores[-1]}

    excluded = sorted({layer.name for layer in graph.layers if not layer.quantizable} | decoding(graph))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tuner-inc-") as folder:
        request = _request(folder, graph.path.resolve(), images, task="tune", excluded=excluded, **vars(settings))
        done = list(_converse(python, request, Path(folder), answer))[-1]
        model = Path(done["model"]).read_bytes() if done["model"] else best
    seconds = time.perf_counter() - started
    return Tuned(model, bool(done["model"]), tuple(scores), seconds, (str(python), str(_WORKER), "request.json"))


def _request(folder: str, model: Path, images: PreprocessedImages, **facts: Any) -> dict[str, Any]:
    pixels = Path(folder) / "pixels.npy"
    np.save(pixels, images.pixels)
    how = images.preprocessing
    feed = {"divisor": how.divisor, "mean": how.mean, "std": how.std}
    return {"folder": folder, "model": str(model), "pixels": str(pixels), "feed": feed, "images": len(images), **facts}


def _converse(
    python: Path, request: Mapping[str, Any], folder: Path, answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the worker's messages; those that ask for a score get an answer.

    Raises:
        RuntimeUnavailable: It ended before it said that it was done.
    """
    path = folder / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    with (folder / "log").open("w+", encoding="utf-8") as log, _started(python, path, folder, log) as child:
        assert child.stdin is not None and child.stdout is not None
        finished = False
        for line in child.stdout:
            message = json.loads(line)
            if "score" in message and "layer" not in message:
                child.stdin.write(json.dumps(answer(message)) + "\n")
                child.stdin.flush()
            finished = finished or bool(message.get("done"))
            yield message
        if child.wait() != 0 or not finished:
            log.seek(0)
            lines = [text.strip() for text in log if text.strip()][-_TAIL:]
            raise RuntimeUnavailable(f"Neural Compressor failed: {' | '.join(lines)}")


@contextmanager
def _started(python: Path, request: Path, folder: Path, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    child = subprocess.Popen(
        [python, _WORKER, request],
        cwd=folder,  # it leaves a workspace there
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        with within_memory(child, "Neural Compressor"):
            yield child
    finally:
        child.kill()
        child.communicate()


def _dense_model(graph: ModelGraph, detector: Detector) -> onnx.ModelProto:
    """The model up to its dense outputs, scaled so that boxes do not outweigh the classes."""
    dense = detector.dense(graph)
    if dense is None:
        raise InputError(f"{graph.path}: has no dense output that Neural Compressor's error could be taken of")
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for name in dense.tensors:
        if name not in graph.outputs:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, graph.shapes.get(name))
            model.graph.output.append(value)
    cut = onnx.utils.Extractor(model).extract_model([graph.input], list(dense.tensors))
    for name, factors in zip(dense.tensors, dense.factors(), strict=True):
        if factors is None:
            continue
        scaled, constant = f"tuner_scaled_{name}", f"tuner_factors_{name}"
        cut.graph.initializer.append(onnx.numpy_helper.from_array(factors, constant))
        cut.graph.node.append(onnx.helper.make_node("Mul", [name, constant], [scaled], name=f"{scaled}_Mul"))
        output = next(value for value in cut.graph.output if value.name == name)
        output.CopyFrom(onnx.helper.make_tensor_value_info(scaled, onnx.TensorProto.FLOAT, None))
    return cut
