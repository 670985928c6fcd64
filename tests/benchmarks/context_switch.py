"""What a switch to another context and back does to loaded engines: both engines of a trial, timed in turns.

    python tests/benchmarks/context_switch.py RUN --trial N [--wait 20]

RUN is a tensorrt run whose engines are in the user's cache; nothing else may use the GPU. After a switch
(`objectives.runners.cuda.switch_contexts`) each engine is loaded once and timed where it lies; then again after a wait,
after another switch, and loaded anew without a further one.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from objectives.evaluation import Bench
from objectives.latency import measure
from objectives.runners.cuda import switch_contexts
from objectives.runners.tensorrt_runner import TensorRtRunner
from objectives.scores import Latency
from tuner.loaded import load_run
from tuner.measuring import evaluator_settings
from tuner.prepare import read_inputs
from tuner.workbench import Workbench

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", type=int, required=True)
    parser.add_argument("--wait", type=float, default=20.0)
    options = parser.parse_args()
    loaded = load_run(options.run)
    scheme = loaded.record(options.trial).allocation
    settings = evaluator_settings(Workbench(read_inputs(loaded.config), loaded.run))
    assert settings.timing is not None, "latency is no objective of this run"
    bench = Bench(replace(settings, predictions=None, engines=None))
    backend, device = bench._backend, settings.builder.device
    protocol = replace(settings.timing, min_seconds=0.7)
    plans = [
        backend.build(bench._materializer.materialize(each).engine_model)[0] for each in (scheme, bench._unquantized)
    ]

    def show(title: str, runners: list[TensorRtRunner]) -> None:
        for _ in range(REPEATS):
            timed = measure(runners[0], runners[1], bench._sample, protocol)
            assert isinstance(timed, Latency), timed
            times = f"scheme {timed.p50_ms:.4f} ms, reference {timed.reference_p50_ms:.4f} ms, ratio {timed.ratio:.4f}"
            print(f"{title + ':':36s} {times}", flush=True)

    switch_contexts(device)
    for title in ("loaded after a switch", "loaded anew"):
        with ExitStack() as stack:
            runners = [stack.enter_context(TensorRtRunner(plan, backend._stream)) for plan in plans]
            show(title, runners)
            if title == "loaded anew":
                return
            time.sleep(options.wait)
            show(f"{options.wait:.0f} s later", runners)
            begin = time.perf_counter()
            switch_contexts(device)
            show(f"after a switch of {time.perf_counter() - begin:.2f} s", runners)


if __name__ == "__main__":
    main()
