"""Compares samplers on one real study: the same preparations and seeds, then each sampler on its own.

    python tests/benchmarks/real_samplers.py STUDY.yaml --out DIR --trials 60 --repeats 2 [--cores 2]

Runs the study with its seeds alone once (`DIR/base`), then, for every sampler and repeat, goes on from a copy of that
run. What one of them evaluated, the others read: an equal scheme is measured once. Latencies of all runs are paired
with the same reference. Interrupted, it goes on where it stopped. Prints the hypervolume after some trials; at the end
once more by latencies for which all schemes of all runs are timed together, and after how many trials the first sampler
has what each of the others ends with.

With ``--cores N`` all go on side by side, each on N cores of its own; then they share only what the base evaluated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from timed_together import ratios_of, timed_curve

from search_spaces.durable import write_durably
from tuner.results.loaded import load_run
from tuner.search.front import hypervolume_history
from tuner.study.run_folder import read_json

SAMPLERS = ("model", "lowdim-tpe", "tpe", "nsga2", "knapsack")


def tuner(*arguments: str, cores: list[int] | None = None, temporary: Path) -> None:
    """Runs the command line and fails with it; on `cores` alone where they are named.

    What studies teach lies in `temporary`, and so does the lock of the device.
    """
    temporary.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "TUNER_CACHE": str(temporary)}
    subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        check=True,
        stdout=sys.stderr,
        env=environment,
        preexec_fn=partial(os.sched_setaffinity, 0, cores) if cores else None,
    )


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
    assert loaded.reference is not None, f"{run}: no reference yet"
    found = hypervolume_history(loaded.records, loaded.config.objective_set, loaded.reference)
    return np.array([*found, *[found[-1]] * max(0, trials - len(found))])[:trials]


def show(run: Path, trials: int) -> None:
    """Prints the hypervolume after some trials."""
    found = curve(run, trials)
    print(run.name, " ".join(f"{n}: {found[n - 1]:.4f}" for n in (20, 30, 45, 60) if n <= len(found)), flush=True)


def side_by_side(runs: list[Path], trials: int, cores: int) -> None:
    """Resumes all runs at once, each on cores of its own."""
    free = sorted(os.sched_getaffinity(0))
    if len(free) < cores * len(runs):
        sys.exit(f"--cores {cores}: {len(runs)} runs need {cores * len(runs)} cores, {len(free)} are usable; lower it")

    def resume(index: int) -> None:
        own = free[index * cores : (index + 1) * cores]
        tuner("resume", str(runs[index]), "--trials", str(trials), cores=own, temporary=temporary(runs[index]))
        show(runs[index], trials)

    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(resume, range(len(runs))))


def temporary(run: Path) -> Path:
    """Of one run, beside it."""
    return run.with_name(run.name + "-tmp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sampler", action="append", choices=SAMPLERS)
    parser.add_argument(
        "--cores", type=int, default=0, help="cores of each run, all side by side; 0: one after another"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    base = options.out / "base"
    if not (base / "front.json").exists():
        if base.exists():
            tuner("resume", str(base), "--trials", "1", temporary=temporary(base))
        else:
            tuner("run", str(options.study), "--run", str(base), "--trials", "1", temporary=temporary(base))
        waiting = len(read_json(base / "cache" / "seeds.json", list[Any]))
        tuner("resume", str(base), "--trials", str(waiting), temporary=temporary(base))
    runs: list[Path] = []
    for repeat in range(options.repeats):
        for sampler in options.sampler or SAMPLERS:
            run = options.out / f"{sampler}-{repeat}"
            if not run.exists():
                copy_run(base, run, sampler, repeat)
            if not options.cores:
                share_evaluations(runs, run)
                tuner("resume", str(run), "--trials", str(options.trials), temporary=temporary(run))
                show(run, options.trials)
            runs.append(run)
    if options.cores:
        side_by_side(runs, options.trials, options.cores)
    loaded = [load_run(run) for run in runs]
    ratios = ratios_of(loaded, options.out / "ratios.json")
    curves = {run.run.path.name: timed_curve(run, loaded[0], ratios)[: options.trials] for run in loaded}
    best = next(iter(curves.values()))
    print("timed together:")
    for name, found in curves.items():
        reached = np.flatnonzero(best >= found[-1])
        print(f"{name}: {found[-1]:.4f}; {runs[0].name}", f"after {reached[0] + 1}" if len(reached) else "never")
    (options.out / "curves.json").write_text(json.dumps({name: found.tolist() for name, found in curves.items()}))


if __name__ == "__main__":
    main()
