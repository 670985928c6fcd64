"""What several workers cost the search: hypervolume of serial and of parallel studies after equally many trials.

    python tests/benchmarks/parallel_search.py MODEL.onnx [--workers 4] [--trials 60] [--seeds 3]

Scores are replayed (a seeded synthetic model over MODEL's layers, `objectives/replay.py`), each after a delay, so that
workers overlap as they do when they measure. Prints a line per study, and exits with 1 if one evaluated a scheme twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from tuner.results.loaded import load_run
from tuner.search.front import hypervolume


def search(folder: Path, model: Path, seed: int, workers: int, trials: int, delay: float) -> tuple[float, int]:
    """Runs one study; returns its hypervolume and how many schemes it evaluated more than once."""
    folder.mkdir()
    (folder / "replay.json").write_text(json.dumps({"seed": 7, "delay": delay, "noise": 0.003}))
    study = {
        "name": f"parallel-{workers}-{seed}",
        "model": {"path": str(model.resolve())},
        "space": {"formats": ["fp16", "int8", "w4a16"]},
        "runtime": {"name": "replay", "file": "replay.json"},
        "search": {"trials": trials, "seed": seed},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "tuner", "run", str(folder / "study.yaml"), "--run", str(folder / "run")]
    subprocess.run([*command, "--workers", str(workers)], check=True, capture_output=True)
    loaded = load_run(folder / "run")
    assert loaded.reference is not None
    records = [record for record in loaded.records if record.scores is not None]
    counts = Counter(record.allocation.digest for record in records)
    return hypervolume(records[:trials], loaded.config.objective_set, loaded.reference), sum(
        count - 1 for count in counts.values()
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds that an evaluation takes")
    options = parser.parse_args()
    twice = 0
    found: dict[int, list[float]] = {1: [], options.workers: []}
    with tempfile.TemporaryDirectory(prefix="parallel-") as scratch:
        for seed in range(options.seeds):
            for workers, volumes in found.items():
                folder = Path(scratch) / f"{workers}-{seed}"
                volume, doubled = search(folder, options.model, seed, workers, options.trials, options.delay)
                volumes.append(volume)
                twice += doubled
                print(f"seed {seed}, {workers} workers: {volume:.5f}, evaluated twice {doubled}", flush=True)
    for workers, volumes in found.items():
        print(f"{workers} workers: {np.mean(volumes):.5f} ± {np.std(volumes):.5f}")
    return int(twice > 0)


if __name__ == "__main__":
    sys.exit(main())
