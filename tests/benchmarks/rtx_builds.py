"""What TensorRT-RTX builds of a model: every uniform format and granularity, and random mixes, for several GPUs.

    python tests/benchmarks/rtx_builds.py MODEL.onnx... [--mixes 12] [--targets 8.6 8.9 12.0]

Engines are built on the CPU; needs the extra ``tensorrt-rtx``. Ranges come from an image of noise. Prints a Markdown
row per model and GPU, engine sizes of the uniform schemes, and every failure with its reason; then it ends with 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.runtimes.tensorrt_rtx.build import build_engine
from objectives.runtimes.tensorrt_rtx.capability import parse_capability
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Granularity
from search_spaces.model_graph import ModelGraph


def schemes(graph: ModelGraph, allowed: list[str], mixes: int) -> Iterator[tuple[str, Granularity, Allocation]]:
    """Uniform ones at every granularity, of the layers that can have the format, then mixes."""
    choices = {x.name: [fmt for fmt in allowed if not x.lacks(FORMATS[fmt])] for x in graph.quantizable}
    for fmt in allowed:
        names = [name for name, found in choices.items() if fmt in found]
        for granularity in Granularity if FORMATS[fmt].quantizes_weight else [Granularity.AUTO]:
            yield f"{fmt} {granularity.value}", granularity, Allocation.uniform(names, fmt)
    draw = np.random.default_rng(0)
    for index in range(mixes):
        yield (
            f"mix {index}",
            Granularity.AUTO,
            Allocation.of({name: str(draw.choice(found)) for name, found in choices.items()}),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--mixes", type=int, default=12)
    parser.add_argument("--targets", nargs="+", default=["8.6", "8.9", "12.0"])
    options = parser.parse_args()
    print("| model | GPU | layers | built | refused formats | failed | s | MiB: " + ", ".join(FORMATS) + " |")
    print("| --- |" + " --- |" * 7)
    failures = []
    for path in options.models:
        graph = ModelGraph(path)
        names = [layer.name for layer in graph.quantizable]
        image = np.random.default_rng(0).random(graph.input_shape, dtype=np.float32)
        table = calibrate(graph, [image], "max")
        for target in options.targets:
            runtime = open_runtime(parse_settings({"name": "tensorrt-rtx", "compute_capability": target}))
            dialect = runtime.dialect()
            allowed = [name for name, fmt in FORMATS.items() if not dialect.refuses(fmt)]
            makers = {g: Materializer(graph, table, dialect, WeightSettings("rtn", g)) for g in Granularity}
            built, sizes, start = 0, {}, time.perf_counter()
            for title, granularity, allocation in schemes(graph, allowed, options.mixes):
                try:
                    artifact = makers[granularity].materialize(allocation)
                    artifact.check()
                    plan, _ = build_engine(artifact.data, parse_capability(target), names)
                except Exception as error:
                    failures.append(f"{path.stem}, {target}, {title}: {type(error).__name__}: {str(error)[:300]}")
                    continue
                built += 1
                sizes[title] = len(plan) / 2**20
            seconds = time.perf_counter() - start
            found = [f"{sizes[f'{name} auto']:.2f}" if f"{name} auto" in sizes else "-" for name in FORMATS]
            refused = ", ".join(name for name in FORMATS if name not in allowed)
            failed = sum(line.startswith(f"{path.stem}, {target},") for line in failures)
            cells = [path.stem, target, str(len(names)), str(built), refused, str(failed), f"{seconds:.0f}"]
            print(f"| {' | '.join([*cells, ', '.join(found)])} |", flush=True)
    print("\n".join(["", f"{len(failures)} failures", *failures]))
    return min(1, len(failures))


if __name__ == "__main__":
    sys.exit(main())
