"""Time to materialize one int8 scheme: ours against NVIDIA ModelOpt's ONNX ``quantize``, in one run.

    python tests/benchmarks/materialization.py MODEL.onnx --calibration LIST [--images 16] [--rounds 3]

Needs the `torch` extra (for ModelOpt). Both read the same preprocessed calibration images. ModelOpt calibrates inside
every call, so its time is that of a scheme in a study that would use it; ours calibrates once per study (shown apart)
and then assembles. ``first`` quantizes every weight, ``next`` is any later scheme.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


def main() -> None:
    """Prints one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True, help="image list")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    graph = ModelGraph(args.model)
    records = load_calibration(args.calibration, args.images).images
    with tempfile.TemporaryDirectory() as folder:
        images = PreprocessedImages.build(records, recognise(graph).preprocessing, Path(folder))
        pixels = images.batch(0, len(images))
        start = time.perf_counter()
        table = calibrate(graph, (pixels[i : i + 1] for i in range(len(pixels))))
        calibration = time.perf_counter() - start
        materializer = Materializer(graph, table, ONNXRUNTIME)
        names = [layer.name for layer in graph.quantizable]
        first = _seconds(lambda: materializer.materialize(Allocation.uniform(names, "int8")))
        ours, theirs = [], []
        for index in range(args.rounds):
            mixed = {name: "fp16" if i % 7 == index else "int8" for i, name in enumerate(names)}
            ours.append(_seconds(lambda mixed=mixed: materializer.materialize(Allocation.of(mixed))))
            theirs.append(_seconds(lambda: _modelopt(args.model, graph.input, pixels, Path(folder))))
    next_one, modelopt = statistics.median(ours), statistics.median(theirs)
    print(f"{args.model.name}, {len(names)} layers, {len(pixels)} images, {platform.machine()}, {os.cpu_count()} cores")
    print("| step | seconds |\n| --- | --- |")
    print(f"| ours, calibration (once per study) | {calibration:.2f} |")
    print(f"| ours, first scheme | {first:.3f} |")
    print(f"| ours, next scheme (median of {args.rounds}) | {next_one:.3f} |")
    print(f"| ModelOpt `quantize` int8 (median of {args.rounds}) | {modelopt:.2f} |")
    print(f"\nModelOpt / ours: {modelopt / next_one:.0f} x")


def _seconds(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start


def _modelopt(model: Path, name: str, pixels: np.ndarray, folder: Path) -> None:
    from modelopt.onnx.quantization import quantize

    with contextlib.redirect_stdout(io.StringIO()):
        quantize(
            onnx_path=str(model),
            quantize_mode="int8",
            calibration_data={name: pixels},
            calibration_method="max",
            calibration_eps=["cpu"],
            output_path=str(folder / "modelopt.onnx"),
            high_precision_dtype="fp32",
        )


if __name__ == "__main__":
    main()
