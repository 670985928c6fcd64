"""Baselines: models that the search did not make, scored and timed as its trials are, and shown beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from objectives.evaluation.bench import REFERENCE
from objectives.latency import measure
from objectives.runtimes.opening import open_file, open_model
from objectives.runtimes.reference import reference_model
from objectives.runtimes.registry import default_runtime
from objectives.scores import Failure, Latency
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.prediction_file import load_predictions
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import get_number
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph
from tuner.prepare.evaluators import timing_protocol
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.predicting import detect
from tuner.prepare.prepared import ensure_parts
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.reporting import read_baselines, write_report_of
from tuner.search.records import Baseline, BaselineOutcome
from tuner.study.inputs import read_inputs
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent


def add_baseline(path: Path, model: Path, name: str, steps: Steps = silent) -> Baseline:
    """Scores a model on a run's search images, times it where trials are timed, and renews the report.

    Args:
        path: The run folder.
        model: Any ONNX detector for the same images, quantized or not.
        name: Shown in figures; a baseline of the same name is replaced.
        steps: Shows progress.

    Raises:
        InputError: The run has no reference yet, the model is no such detector, or cannot be timed here.
    """
    loaded = open_scored(path)
    inputs = read_inputs(loaded.config)
    data, batch = data_of(inputs), inputs.runtime.settings.batch
    runtime = default_runtime(batch) if inputs.runtime.emulated else inputs.runtime  # as trials are scored
    graph = ModelGraph(model, allow_quantized=True, image_size=data.contract.image_size)
    contract, note = detector_like(graph, data.contract)
    if note:
        say(f"note: {note}")
    if contract.image_size != data.contract.image_size:
        raise InputError(f"{model}: takes images of {contract.image_size}, the run's model {data.contract.image_size}")
    images = ensure_images(inputs, loaded.run, data.search.images, steps)
    timed: Latency | Failure | None = None
    with open_file(runtime, model, data.contract.image_size) as candidate:
        with steps(f"scoring {name}", len(images)) as done:
            found = detect(runtime, candidate, images, contract, done)
        if loaded.config.objective_set.timed:
            parts = ensure_parts(inputs, loaded.run, steps)
            unquantized = reference_model(runtime, parts.graph, lambda: parts.materializer)
            pixels = images.batch(0, min(batch, len(images)))
            sample = np.resize(pixels, (batch, *pixels.shape[1:]))
            protocol = timing_protocol(loaded.config.timing, runtime)
            with open_model(runtime, unquantized, parts.graph) as reference, runtime.hold(alone=True):
                timed = measure(candidate, reference, sample, protocol, observe=runtime.observe)
    if isinstance(timed, Failure):
        raise InputError(f"{model}: {timed.kind}: {timed.message}")
    accuracy = score(
        data.search, found, loaded.config.data.metrics, load_predictions(loaded.run.predictions / f"{REFERENCE}.npz")
    )
    goal = loaded.config.objective_set.maximised
    milliseconds = loaded.reference.latency_ms * timed.ratio if loaded.reference and timed else 0.0
    noisy = timed is not None and timed.noisy
    baseline = Baseline(name, accuracy.figure(goal.name), milliseconds, _weight_bytes(graph), noisy, goal.name)
    keep(path, baseline, inputs.graph.layers)
    return baseline


def detector_like(graph: ModelGraph, own: Detector) -> tuple[Detector, str]:
    """How to read a model of another tool, giving what the run's model gives; and what is to be said of it, or nothing.

    Tools that rewrite a graph often drop its metadata: one that says too little of itself is read as the run's model.

    Args:
        graph: Of that model.
        own: How the run's model is read.

    Raises:
        InputError: It is no such detector, or has no masks or keypoints where the run's has.
    """
    note = ""
    try:
        found = recognise(graph)
    except InputError:
        found = recognise(graph, head=own.name, image_size=own.image_size, classes=own.classes or None)
        note = f"{graph.path}: does not say how its outputs are read; read as the run's model ({own.name})"
    return found.giving(own.details, str(graph.path)), note


def open_scored(path: Path) -> LoadedRun:
    """Loads a run whose reference is scored.

    Raises:
        InputError: It is no run, or has no reference yet.
    """
    loaded = load_run(path)
    if loaded.reference is None:
        raise InputError(f"run {str(path)!r}: its reference is not scored yet; `tuner resume {path}` goes on")
    return loaded


def keep(path: Path, outcome: BaselineOutcome, layers: Sequence[Layer] | None = None) -> None:
    """Puts an outcome among a run's baselines, in the place of one of the same name, and renews the report.

    Args:
        path: The run folder.
        outcome: Measured or failed.
        layers: Of the run's model; read from its file where not given.
    """
    loaded = load_run(path)
    others = [other for other in read_baselines(loaded.run) if other.name != outcome.name]
    write_durably(loaded.run.baselines, json.dumps([entry.to_json() for entry in [*others, outcome]], indent=1))
    write_report_of(loaded, layers)


def _weight_bytes(graph: ModelGraph) -> int:
    """Bytes of all constants of two or more dimensions: the weights, whatever exporter wrote them."""
    total = 0
    for tensor in graph.model.graph.initializer:
        if len(tensor.dims) >= 2:
            packing = _packing(tensor)
            elements = int(np.prod(tensor.dims))
            total += -(-elements // packing) if packing > 1 else graph.initializers[tensor.name].nbytes
    return total


def _packing(tensor: onnx.TensorProto) -> int:
    """Elements that share a byte."""
    try:
        return get_number(onnx.TensorProto.DataType.Name(tensor.data_type)).packing
    except LookupError:
        return 1
