"""Counts the trials that a second real study saves by what the first taught.

    python tests/benchmarks/second_study.py STUDY.yaml --out DIR [--trials 40] [--second 24]

Runs a study (`DIR/first`), then twice a further one with another seed: with what the first taught (`DIR/taught`), and
with nothing (`DIR/untaught`). Accuracies repeat, latencies do not: all schemes of the three are timed once more at the
end, in rounds of one process, each paired with the reference, and the hypervolumes are of the medians. Prints after how
many trials each has 95 % of what the first ended with. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from real_samplers import tuner

from objectives.evaluation.evaluator import Evaluator
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.retime import Round, rounds_of
from tuner.search.front import hypervolume_history
from tuner.search.records import TrialRecord
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import read_json
from tuner.terminal.progress import bar


def ratios_of(runs: list[LoadedRun], path: Path) -> dict[str, float]:
    """Times all complete schemes of the runs in rounds; ``{allocation digest: median ratio}``, kept in `path`."""
    if not path.exists():
        schemes = {each.allocation.digest: each.allocation for run in runs for each in run.records if each.scores}
        first = runs[0]
        settings = evaluator_settings(read_inputs(first.config), first.run, bar)
        assert settings.timing is not None
        settings = replace(settings, timing=replace(settings.timing, attempts=1))
        with Evaluator(settings) as evaluator:

            def time(allocation: Allocation) -> Round | None:
                timed = evaluator.time(allocation)
                if isinstance(timed, Failure):
                    sys.exit(f"{timed.kind}: {timed.message}")
                return Round(timed.ratio, timed.ratio_low, timed.ratio_high, timed.noisy)

            found = rounds_of(list(schemes.values()), time, lambda rounds: rounds.keys(), bar)
        kept = {digest: median(one.ratio for one in rounds) for digest, rounds in found.items()}
        write_durably(path, json.dumps(kept))
    return read_json(path, dict[str, float])


def curve(run: LoadedRun, first: LoadedRun, ratios: dict[str, float]) -> np.ndarray:
    """Hypervolume after each complete trial by the repeated timings, shape ``(trials,)``."""
    reference = first.reference
    assert reference is not None and reference.latency is not None
    whole = reference.latency_ms

    def timed(record: TrialRecord) -> TrialRecord:
        if record.scores is None or whole is None:
            return record
        scores = replace(record.scores, latency_ms=whole * ratios[record.allocation.digest])
        return replace(record, scores=scores)

    records = [timed(record) for record in run.records]
    return np.array(hypervolume_history(records, first.config.objective_set, reference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=40, help="of the first study")
    parser.add_argument("--second", type=int, default=24, help="trials of the further ones")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for name, seed, told, trials in (
        ("first", 0, "true", options.trials),
        ("taught", 7, "true", options.second),
        ("untaught", 7, "false", options.second),
    ):
        path = options.out / name
        if path.exists():
            tuner("resume", str(path), temporary=options.out / "tmp")
        else:
            keys = ("--set", f"search.seed={seed}", "--set", f"search.transfer={told}", "--trials", str(trials))
            tuner("run", str(options.study), "--run", str(path), *keys, temporary=options.out / "tmp")
        runs.append(load_run(path))
    first, ratios = runs[0], ratios_of(runs, options.out / "ratios.json")
    curves = {run.run.path.name: curve(run, first, ratios) for run in runs}
    goal = 0.95 * float(curves["first"][-1])
    for name, found in curves.items():
        reached = np.flatnonzero(found >= goal)
        after = f"after {reached[0] + 1} trials" if len(reached) else f"not in {len(found)} trials"
        print(f"{name}: 95 % of {goal / 0.95:.4f} {after}; after 5, 10, 15, 20 and all: ", end="")
        print(" ".join(f"{found[min(n, len(found)) - 1]:.4f}" for n in (5, 10, 15, 20, len(found))), flush=True)


if __name__ == "__main__":
    main()
