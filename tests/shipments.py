"""Shipments of tiny detectors: one scheme of a real model, materialized for a runtime."""

from __future__ import annotations

from pathlib import Path

from tiny_detectors import write_calibration

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph
from tuner.results.targets.target import Shipment


def shipment_of(
    folder: Path, model: Path, runtime: str = "onnxruntime-cpu", fmt: str = "int8", batch: int = 1, **keys: object
) -> Shipment:
    """Makes uniform `fmt` of a model.

    Args:
        folder: Where images go.
        model: The detector.
        runtime: Its name; needs not be installed.
        fmt: Of every layer.
        batch: Images of one inference.
        keys: Of the runtime's section.
    """
    single = ModelGraph(model)
    graph = single if batch == 1 else ModelGraph(model, batch=batch)
    detector = recognise(graph)
    images = load_calibration(write_calibration(folder, 3), None).images
    table = calibrate(
        single, PreprocessedImages.build(images, detector.preprocessing, folder / "pixels").singles(), "max"
    )
    found = open_runtime(parse_settings({"name": runtime, "batch": batch, **keys}))
    allocation = Allocation.uniform([layer.name for layer in graph.quantizable], fmt)
    artifact = Materializer(graph, table, found.dialect()).materialize(allocation)
    files, command = {"model.onnx": artifact.data}, ""
    if isinstance(found, EngineBuilder):
        engine = found.export(artifact, graph, "10.13", quantized=True)
        files, command = {**files, **engine.files}, engine.command
    return Shipment("mine", "7", files, detector, found, batch, fmt == "int8", command)
