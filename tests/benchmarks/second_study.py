"""Counts the trials that a second real study saves by what the first taught.

    python tests/benchmarks/second_study.py STUDY.yaml --out DIR [--trials 40] [--second 24]

Runs a study (`DIR/first`), then twice a further one with another seed: with what the first taught (`DIR/taught`), and
with nothing (`DIR/untaught`). Accuracies repeat, latencies do not: all schemes of the three are timed once more at the
end, in rounds of one process, each paired with the reference, and the hypervolumes are of the medians. Prints after how
many trials each has 95 % of what the first ended with. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from real_samplers import tuner
from timed_together import ratios_of, timed_curve

from tuner.results.loaded import load_run


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
    curves = {run.run.path.name: timed_curve(run, first, ratios) for run in runs}
    goal = 0.95 * float(curves["first"][-1])
    for name, found in curves.items():
        reached = np.flatnonzero(found >= goal)
        after = f"after {reached[0] + 1} trials" if len(reached) else f"not in {len(found)} trials"
        print(f"{name}: 95 % of {goal / 0.95:.4f} {after}; after 5, 10, 15, 20 and all: ", end="")
        print(" ".join(f"{found[min(n, len(found)) - 1]:.4f}" for n in (5, 10, 15, 20, len(found))), flush=True)


if __name__ == "__main__":
    main()
