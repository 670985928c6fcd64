"""Where an engine's time comes from besides the engine: both engines of a trial, loaded again and again.

    python tests/benchmarks/engine_placement.py RUN --trial N [--loads 8]

RUN is a tensorrt run whose engines are in the user's cache. Times the scheme against the reference, behind memory of
random size that is taken before: each loaded once, where chance puts it; then each at the fastest of a few places, as
the tuner does it (`runtimes/tensorrt/memory_places.py`). Prints the paired ratios, their spread (largest /
smallest - 1), and both engines' milliseconds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from objectives.devices.cuda import DeviceBuffer, switch_contexts
from objectives.evaluation.bench import Bench
from objectives.latency import measure
from objectives.runtimes.tensorrt.bindings import TensorRtBindings
from objectives.runtimes.tensorrt.memory_places import Placed, fastest_place
from objectives.runtimes.tensorrt.runner import TensorRtRunner
from objectives.runtimes.tensorrt.runtime import TensorRt
from objectives.scores import Latency
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs

MODES = {"where chance puts them": 1, "at the fastest of 5 places": 5}


@contextmanager
def padding(draw: random.Random) -> Iterator[None]:
    pads = [DeviceBuffer((draw.randrange(1, 64) << 20,), np.dtype(np.uint8)) for _ in range(3)]
    try:
        yield
    finally:
        for pad in pads:
            pad.free()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", type=int, required=True)
    parser.add_argument("--loads", type=int, default=8)
    options = parser.parse_args()
    loaded = load_run(options.run)
    scheme = loaded.record(options.trial).allocation
    settings = evaluator_settings(read_inputs(loaded.config), loaded.run)
    assert settings.timing is not None, "latency is no objective of this run"
    bench = Bench(replace(settings, predictions=None, engines=None))
    runtime, draw = bench._builder, random.Random(0)
    assert isinstance(runtime, TensorRt)
    plan, reference_plan = (
        runtime.build(bench._materializer.materialize(each).engine_model, bench._graph)[0]
        for each in (scheme, bench._unquantized)
    )
    protocol = replace(settings.timing, min_seconds=0.7)

    def place(file: Path, places: int) -> AbstractContextManager[Placed[TensorRtRunner]]:
        load, settle = (
            partial(TensorRtRunner, TensorRtBindings(), file, runtime._stream),
            partial(switch_contexts, settings.runtime.device),
        )
        return fastest_place(load, settle, places)

    for mode, places in MODES.items():
        found: list[Latency] = []
        for _ in range(options.loads):
            with padding(draw), place(plan, places) as candidate, place(reference_plan, places) as reference:
                timed = measure(candidate.runner, reference.runner, bench._sample, protocol)
            if isinstance(timed, Latency):
                found.append(timed)
            else:
                print(timed.message)
        ratios = [timing.ratio for timing in found]
        print(f"{mode}: spread {max(ratios) / min(ratios) - 1:.2%}; ratio " + " ".join(f"{r:.4f}" for r in ratios))
        print("  scheme, ms    " + " ".join(f"{timing.p50_ms:.4f}" for timing in found))
        print("  reference, ms " + " ".join(f"{timing.reference_p50_ms:.4f}" for timing in found), flush=True)


if __name__ == "__main__":
    main()
