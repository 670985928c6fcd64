"""What makes engines build faster: seconds of several builds in one process, per set of builder choices.

    python tests/benchmarks/build_seconds.py RUN [--variant both --variant jit --variant edge --variant pinned]

RUN is a tensorrt run that is calibrated. Each variant builds, in a process and a cache of its own: the fp16 engine (the
first build of a process), uniform int8, int8 with every second layer in fp16, and int8 with every third. Then a process
that never built times and scores each engine. ``pinned`` forbids fp32 for layers that neither read Q/DQ nor need it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from objectives.evaluation.bench import Bench
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.settings import EvaluatorSettings
from objectives.scores import Scores
from search_spaces.allocation import Allocation
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs

EDGE, JIT = "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"
VARIANTS = {"both": [EDGE, JIT], "jit": [JIT], "edge": [EDGE], "pinned": [EDGE, JIT]}


def schemes(layers: list[str]) -> dict[str, Allocation]:
    mixed = {n: Allocation.of({x: "int8" if i % n else "fp16" for i, x in enumerate(layers)}) for n in (2, 3)}
    return {
        "fp16": Allocation.uniform(layers, "fp16"),
        "int8": Allocation.uniform(layers, "int8"),
        "int8, every 2nd fp16": mixed[2],
        "int8, every 3rd fp16": mixed[3],
    }


def pin() -> None:
    """Has the builder keep plain layers in fp16, so that it does not try fp32 for them."""
    import tensorrt as trt

    from objectives.runtimes.tensorrt import build as tensorrt_build

    before = tensorrt_build._keep_fp32

    def pinned(network: Any, names: Collection[str]) -> None:
        quantized = set()
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.type.name == "DEQUANTIZE":
                quantized.add(layer.get_output(0).name)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
            if layer.type.name in tensorrt_build._COMPUTING and not any(t and t.name in quantized for t in inputs):
                layer.precision = trt.float16
        before(network, names)

    tensorrt_build._keep_fp32 = pinned


def build(settings: EvaluatorSettings, variant: str) -> None:
    if variant == "pinned":
        pin()
    bench = Bench(settings)
    for name, scheme in schemes([layer.name for layer in bench._graph.quantizable]).items():
        begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        bench.build(scheme)
        now = resource.getrusage(resource.RUSAGE_SELF)
        print(
            f"{variant:7} {name:22} built in {time.perf_counter() - begin:6.1f} s, "
            f"user {now.ru_utime - used.ru_utime:.1f}, system {now.ru_stime - used.ru_stime:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--only-build", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    loaded = load_run(options.run)
    known = evaluator_settings(read_inputs(loaded.config), loaded.run)
    known = replace(known, predictions=None, engines=None, log=None)
    for variant in options.variant or VARIANTS:
        settings = replace(known, runtime=known.runtime.model_copy(update={"tactic_sources": VARIANTS[variant]}))
        if options.only_build:
            build(settings, variant)
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUNER_CACHE"] = folder
            words = [sys.executable, __file__, str(options.run), "--only-build", "--variant", variant]
            if subprocess.run(words, check=False).returncode:
                print(f"{variant}: the builds failed", flush=True)
                continue
            with Evaluator(settings) as evaluator:
                reference = evaluator.reference()
                for name, scheme in schemes([layer.name for layer in Bench(settings)._graph.quantizable]).items():
                    found = evaluator.evaluate(scheme, reference)
                    if isinstance(found, Scores) and found.latency is not None:
                        figures = f"p50 {found.latency.p50_ms:.4f} ms, ratio {found.latency.ratio:.4f}"
                        print(f"{variant:7} {name:22} {figures}, mAP {found.accuracy.map_50_95:.4f}", flush=True)
                    else:
                        print(f"{variant:7} {name:22} {found}", flush=True)


if __name__ == "__main__":
    main()
