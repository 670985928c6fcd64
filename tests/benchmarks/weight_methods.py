"""Accuracy, size and time of the weight methods on one model.

    python tests/benchmarks/weight_methods.py MODEL.onnx --images DIR --annotations FILE --calibration LIST

All quantizable layers get the format; activations stay in float unless the format has its own. Prints a Markdown row
per method: mAP50-95, the paired difference to the model file with its bootstrap 95 % interval, bits, time, peak memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from objectives.accuracy import predict
from objectives.detection.cache import PreprocessedImages
from objectives.detection.calibration_set import load_calibration
from objectives.detection.contract import recognise
from objectives.detection.dataset import load_dataset
from objectives.detection.scoring import bootstrap_difference, score
from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import recover
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Granularity
from search_spaces.model_graph import ModelGraph

ROWS = [
    ("w4a16", "rtn", "per_channel"),
    ("w4a16", "gptq", "per_channel"),
    ("w4a16", "rtn", "auto"),
    ("w4a16", "gptq", "auto"),
    ("w8a16", "rtn", "per_channel"),
    ("w4a8", "gptq", "auto"),
    ("w8a8f", "rtn", "per_channel"),
    ("int8", "rtn", "per_channel"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--calibration-images", type=int, default=32)
    parser.add_argument("--only", help="FORMAT:METHOD:GRANULARITY, comma separated; default all rows")
    options = parser.parse_args()
    rows = [tuple(text.split(":")) for text in options.only.split(",")] if options.only else ROWS
    graph = ModelGraph(options.model)
    contract = recognise(graph)
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_dataset(options.images, options.annotations)
        images = PreprocessedImages.build(dataset.images, contract.image_size, Path(folder) / "images")
        records = load_calibration(options.calibration, options.calibration_images).images
        seen = PreprocessedImages.build(records, contract.image_size, Path(folder) / "calibration")
        with OnnxRuntimeRunner(options.model, threads=1) as runner:
            expected = predict(runner, images, contract, workers=2)
        start = time.perf_counter()
        table = calibrate(graph, seen.singles(), "percentile")
        print(f"ranges of {len(seen)} images: {time.perf_counter() - start:.1f} s", flush=True)
        print(f"fp32 {score(dataset, expected).map_50_95:.4f}, {len(images)} images", flush=True)
        print("| format | method | scales | mAP50-95 | points (95 %) | bits | file MiB | seconds | peak GiB |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for fmt, method, granularity in rows:
            settings = WeightSettings(method, Granularity(granularity))
            start = time.perf_counter()
            pairs = [(layer, FORMATS[fmt]) for layer in graph.quantizable if settings.recovers(layer, FORMATS[fmt])]
            found = recover(graph, seen.singles, pairs, settings) if pairs else {}
            materializer = Materializer(graph, table, "onnxruntime-cpu", settings, found)
            artifact = materializer.materialize(Allocation.uniform([layer.name for layer in graph.quantizable], fmt))
            spent = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            with OnnxRuntimeRunner(artifact.data, threads=1) as runner:
                got = predict(runner, images, contract, workers=2)
            difference, (low, high) = bootstrap_difference(dataset, got, expected)
            points = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            print(
                f"| {fmt} | {method} | {granularity} | {score(dataset, got).map_50_95:.4f} | {points} | "
                f"{artifact.size.average_weight_bits:.2f} | {len(artifact.data) / 2**20:.1f} | {spent:.1f} | "
                f"{peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
