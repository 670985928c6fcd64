"""Compares samplers on one real study: the same preparations and seeds, then each sampler on its own.

    python tests/benchmarks/real_samplers.py STUDY.yaml --out DIR --trials 60 --repeats 2

Runs the study with its seeds alone once (`DIR/base`), then, for every sampler and repeat, goes on from a copy of that
run. What one of them evaluated, the others read: an equal scheme is measured once. Latencies of all runs are paired
with the same reference. Interrupted, it goes on where it stopped. Prints the hypervolume after some trials.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tuner.front import hypervolume_history
from tuner.loaded import load_run
from tuner.run_folder import read_json, write_durably

SAMPLERS = ("model", "nsga2", "tpe", "knapsack")


def tuner(*arguments: str) -> None:
    """Runs the command line and fails with it."""
    subprocess.run([sys.executable, "-m", "tuner", *arguments], check=True, stdout=sys.stderr)


def copy_run(base: Path, target: Path, sampler: str, seed: int) -> None:
    """Copies a run that only did its seeds, for another sampler and seed."""
    staging = target.with_name(target.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(base, staging)
    study = yaml.safe_load((staging / "study.yaml").read_text())
    study["search"] |= {"sampler": sampler, "seed": seed}
    write_durably(staging / "study.yaml", yaml.safe_dump(study))
    manifest = read_json(staging / "manifest.json", dict[str, Any])
    manifest["identity"] |= {"search.sampler": sampler, "search.seed": seed}
    write_durably(staging / "manifest.json", json.dumps(manifest))
    staging.rename(target)


def share_evaluations(runs: list[Path], target: Path) -> None:
    """Copies what the other runs evaluated."""
    for run in runs:
        for path in (run / "cache" / "evaluations").glob("*.json"):
            other = target / "cache" / "evaluations" / path.name
            if not other.exists():
                shutil.copy(path, other)


def curve(run: Path, trials: int) -> np.ndarray:
    """Hypervolume after each complete trial, shape ``(trials,)``."""
    loaded = load_run(run)
    config = loaded.config
    found = hypervolume_history(loaded.records, config.objectives, loaded.reference, config.constraints)
    return np.array([*found, *[found[-1]] * max(0, trials - len(found))])[:trials]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sampler", action="append", choices=SAMPLERS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    base = options.out / "base"
    if not (base / "front.json").exists():
        if base.exists():
            tuner("resume", str(base), "--trials", "1")
        else:
            tuner("run", str(options.study), "--run", str(base), "--trials", "1")
        waiting = len(read_json(base / "cache" / "seeds.json", list[Any]))
        tuner("resume", str(base), "--trials", str(waiting))
    runs = []
    for repeat in range(options.repeats):
        for sampler in options.sampler or SAMPLERS:
            run = options.out / f"{sampler}-{repeat}"
            if not run.exists():
                copy_run(base, run, sampler, repeat)
            share_evaluations(runs, run)
            tuner("resume", str(run), "--trials", str(options.trials))
            runs.append(run)
            found = curve(run, options.trials)
            print(
                run.name, " ".join(f"{n}: {found[n - 1]:.4f}" for n in (20, 30, 45, 60) if n <= len(found)), flush=True
            )
    curves = {run.name: curve(run, options.trials).tolist() for run in runs}
    (options.out / "curves.json").write_text(json.dumps(curves))


if __name__ == "__main__":
    main()
