"""Accuracy, size and time of the weight methods on one model.

    python tests/benchmarks/weight_methods.py MODEL.onnx --images DIR --annotations FILE --calibration LIST

All quantizable layers get the format; activations stay in float unless the format has its own. ``w3a16`` has codes
of three bits, still stored in four. Prints a Markdown row per method: mAP50-95, the paired difference to the
model file with its bootstrap 95 % interval, bits, time, peak memory so far. ``--seconds-only`` leaves the scores out.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import recover
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.comparison import bootstrap_difference
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import predict
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Format, Granularity, Number
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph

THREE = Format("w3a16", replace(Number.INT4, name="int3", least=-4.0, largest=3.0), Number.FP16)
FORMATS[THREE.name] = THREE

ROWS = [
    ("w4a16", "rtn", "per_channel"),
    ("w4a16", "bias", "per_channel"),
    ("w4a16", "gptq", "per_channel"),
    ("w4a16", "rtn", "auto"),
    ("w4a16", "bias", "auto"),
    ("w4a16", "gptq", "auto"),
    ("w3a16", "gptq", "per_channel"),
    ("w3a16", "gptq", "auto"),
    ("w8a16", "rtn", "per_channel"),
    ("w4a8", "gptq", "auto"),
    ("w8a8f", "rtn", "per_channel"),
    ("int8", "rtn", "per_channel"),
]


def _wanted(graph: ModelGraph, fmt: str, settings: WeightSettings) -> list[tuple[Layer, Format]]:
    return [(layer, FORMATS[fmt]) for layer in graph.quantizable if settings.recovers(layer, FORMATS[fmt])]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--annotations")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-images", type=int, default=32)
    parser.add_argument("--only", help="FORMAT:METHOD:GRANULARITY, comma separated; default all rows")
    parser.add_argument("--device", default="cpu", help="who solves gptq: cpu (NumPy) or a PyTorch device, e.g. cuda")
    parser.add_argument("--sequential", type=int, default=1, help="stages of gptq")
    parser.add_argument("--seconds-only", action="store_true", help="time gptq with blocks, score nothing")
    options = parser.parse_args()
    if not options.seconds_only and not (options.images and options.annotations):
        parser.error("--images and --annotations are needed, or --seconds-only")
    rows = [tuple(text.split(":")) for text in options.only.split(",")] if options.only else ROWS
    graph = ModelGraph(options.model)
    contract = recognise(graph)
    with tempfile.TemporaryDirectory() as folder:
        if options.seconds_only:
            records = load_calibration(options.calibration, options.calibration_images).images
            seen = PreprocessedImages.build(records, contract.preprocessing, Path(folder) / "calibration")
            settings = WeightSettings("gptq", device=options.device, sequential=options.sequential)
            for title in ("first", "second"):  # the first run of a GPU also loads its libraries
                start = time.perf_counter()
                recover(graph, seen.singles, _wanted(graph, "w4a16", settings), settings)
                print(f"{title} time, {options.device}: {time.perf_counter() - start:.1f} s, {_peak():.2f} GiB")
            return
        dataset = load_dataset(options.images, options.annotations)
        images = PreprocessedImages.build(dataset.images, contract.preprocessing, Path(folder) / "images")
        records = load_calibration(options.calibration, options.calibration_images).images
        seen = PreprocessedImages.build(records, contract.preprocessing, Path(folder) / "calibration")
        with OnnxRuntimeRunner(options.model, threads=1) as runner:
            expected = predict(runner, images, contract, workers=2)
        start = time.perf_counter()
        table = calibrate(graph, seen.singles(), "percentile")
        print(f"ranges of {len(seen)} images: {time.perf_counter() - start:.1f} s", flush=True)
        print(f"fp32 {score(dataset, expected).map_50_95:.4f}, {len(images)} images", flush=True)
        print("| format | method | scales | mAP50-95 | points (95 %) | bits | file MiB | seconds | peak GiB |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for fmt, method, granularity in rows:
            settings = WeightSettings(method, Granularity(granularity), 32, options.device, options.sequential)
            start = time.perf_counter()
            pairs = _wanted(graph, fmt, settings)
            found = recover(graph, seen.singles, pairs, settings) if pairs else {}
            materializer = Materializer(graph, table, ONNXRUNTIME, settings, found)
            artifact = materializer.materialize(Allocation.uniform([layer.name for layer in graph.quantizable], fmt))
            spent = time.perf_counter() - start
            with OnnxRuntimeRunner(artifact.data, threads=1) as runner:
                got = predict(runner, images, contract, workers=2)
            bits = artifact.size.average_weight_bits - (fmt == THREE.name)
            difference, (low, high) = bootstrap_difference(dataset, got, expected)
            points = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            print(
                f"| {fmt} | {method} | {granularity} | {score(dataset, got).map_50_95:.4f} | {points} | "
                f"{bits:.2f} | {len(artifact.data) / 2**20:.1f} | {spent:.1f} | "
                f"{_peak():.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
