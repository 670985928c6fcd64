"""What a switch to another context and back does to loaded engines: both engines of a trial, timed in turns.

    python tests/benchmarks/context_switch.py RUN --trial N

RUN is a tensorrt run whose engines are in the user's cache; nothing else may use the GPU. Each case is a process of its
own: engines loaded once or at the fastest of five places, a switch (`objectives.devices.cuda.switch_contexts`) never,
before they are loaded, or after. The tuner's own way is the last.
"""

from __future__ import annotations

import argparse
import multiprocessing
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from objectives.devices.cuda import switch_contexts
from objectives.evaluation.bench import Bench
from objectives.latency import measure
from objectives.runtimes.tensorrt.bindings import TensorRtBindings
from objectives.runtimes.tensorrt.memory_places import fastest_place
from objectives.runtimes.tensorrt.runner import TensorRtRunner
from objectives.runtimes.tensorrt.runtime import TensorRt
from objectives.scores import Latency
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs

REPEATS = 2


def case(run: Path, trial: int, places: int, when: str) -> None:
    """Loads reference and scheme, in this order, as the tuner does, and times them."""
    loaded = load_run(run)
    scheme = loaded.record(trial).allocation
    settings = evaluator_settings(read_inputs(loaded.config), loaded.run)
    assert settings.timing is not None, "latency is no objective of this run"
    bench = Bench(replace(settings, predictions=None, engines=None))
    runtime, switch = bench._builder, partial(switch_contexts, settings.runtime.device)
    assert isinstance(runtime, TensorRt)
    runtime._stream.use()
    if when == "before":
        switch()
    with ExitStack() as stack:
        runners = []
        for each in (bench._unquantized, scheme):
            plan, _ = runtime.build(bench._materializer.materialize(each).engine_model, bench._graph)
            load = partial(TensorRtRunner, TensorRtBindings(), plan, runtime._stream)
            settle = switch if when == "after" else lambda: None
            runners.append(stack.enter_context(fastest_place(load, settle, places)).runner)
        for _ in range(REPEATS):
            timed = measure(runners[1], runners[0], bench._sample, replace(settings.timing, min_seconds=0.7))
            assert isinstance(timed, Latency), timed
            print(
                f"{places} loaded, switch {when + ':':7s} scheme {timed.p50_ms:.4f} ms, "
                f"reference {timed.reference_p50_ms:.4f} ms, ratio {timed.ratio:.4f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", type=int, required=True)
    options = parser.parse_args()
    for places in (1, 5):
        for when in ("never", "before", "after"):
            process = multiprocessing.get_context("spawn").Process(
                target=case, args=(options.run, options.trial, places, when)
            )
            process.start()
            process.join()
            assert process.exitcode == 0, f"{places} loaded, switch {when}: exit code {process.exitcode}"


if __name__ == "__main__":
    main()
