"""Where an engine's time comes from besides the engine: both engines of a trial, loaded again and again.

    python tests/benchmarks/engine_placement.py RUN --trial N [--loads 8]

RUN is a tensorrt run whose engines are in the user's cache. Times the scheme against the reference after loading both
anew, then behind memory of random size that is taken before, then with the reference loaded once. Prints the paired
ratios, their spread (largest / smallest - 1), and both engines' milliseconds.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from objectives.evaluation import Bench
from objectives.latency import measure
from objectives.runners.cuda import DeviceBuffer
from objectives.runners.tensorrt_runner import TensorRtRunner
from objectives.scores import Latency
from tuner.loaded import load_run
from tuner.measuring import evaluator_settings
from tuner.prepare import read_inputs
from tuner.workbench import Workbench

MODES = ("both loaded anew", "behind random memory", "behind random memory, reference loaded once")


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
    settings = evaluator_settings(Workbench(read_inputs(loaded.config), loaded.run))
    assert settings.timing is not None, "latency is no objective of this run"
    bench = Bench(replace(settings, predictions=None, engines=None))
    backend, draw = bench._backend, random.Random(0)
    plan, reference_plan = (
        backend.build(bench._materializer.materialize(each).engine_model)[0] for each in (scheme, bench._unquantized)
    )
    protocol = replace(settings.timing, min_seconds=0.7)
    for mode in MODES:
        found: list[Latency] = []
        with TensorRtRunner(reference_plan, backend._stream) as once:
            for _ in range(options.loads):
                pads = padding(draw) if mode != MODES[0] else nullcontext()
                with pads, TensorRtRunner(plan, backend._stream) as candidate:
                    if mode == MODES[2]:
                        timed = measure(candidate, once, bench._sample, protocol)
                    else:
                        with TensorRtRunner(reference_plan, backend._stream) as reference:
                            timed = measure(candidate, reference, bench._sample, protocol)
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
