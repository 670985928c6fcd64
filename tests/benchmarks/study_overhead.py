"""What a study costs beyond inference: wall time of a trial over the bare inference time, and peak memory.

    python tests/benchmarks/study_overhead.py STUDY.yaml [--trials 4]

Runs the study as a user would, in a temporary run folder, while the resident memory of its whole process tree is
sampled (pages that processes share are counted once for each, so the figure is an upper bound). Then the exported or
materialized scheme of every trial is run over the same images in the study's runtime, one image after the other and
nothing else: that is the bare inference time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from objectives.runtimes.opening import open_model
from objectives.runtimes.runtime import Runtime
from objectives.scores import Scores
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.prepared import ensure_parts
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs


def main() -> None:
    """Prints one markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--trials", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        start = time.perf_counter()
        peak = _run_study(args.study, path, args.trials)
        total = time.perf_counter() - start
        loaded = load_run(path)
        inputs = read_inputs(loaded.config)
        images = ensure_images(inputs, loaded.run, data_of(inputs).search.images)
        materializer = ensure_parts(inputs, loaded.run).materializer
        print(f"{args.study.name}: {len(images)} images, {args.trials} trials in {total:.0f} s")
        print("| trial | wall s | bare inference s | ratio |\n| --- | --- | --- | --- |")
        durations = [trial.duration for trial in loaded.trials.study.get_trials(deepcopy=False)]
        ratios = []
        for record in loaded.records:
            duration = durations[record.number]  # from ask to tell
            if isinstance(record.scores, Scores) and duration is not None:
                wall = duration.total_seconds()
                artifact = materializer.materialize(record.allocation)
                assert artifact.digest == record.scores.artifact
                bare = _bare_seconds(inputs.runtime, artifact.data, images)
                ratios.append(wall / bare)
                print(f"| {record.origin} | {wall:.1f} | {bare:.1f} | {wall / bare:.2f} |")
        print(f"\nmedian ratio {statistics.median(ratios):.2f}; peak memory of the study {peak / 2**30:.2f} GiB")


def _run_study(study: Path, path: Path, trials: int) -> int:
    """Runs the study and returns the peak resident bytes of its process tree."""
    command = [sys.executable, "-c", "from tuner.cli.app import main; main()"]
    command += ["run", str(study), "--run", str(path), "--trials", str(trials)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in tree))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.5)  # walking the process table costs time that the study would feel
    if process.returncode:
        raise SystemExit(f"the study ended with {process.returncode}; run it by hand to see why")
    return peak


def _bare_seconds(runtime: Runtime, model: bytes, images: PreprocessedImages) -> float:
    batches = [images.batch(index, index + 1) for index in range(len(images))]
    with open_model(runtime, model, None) as runner:
        runner.infer(batches[0])
        start = time.perf_counter()
        for batch in batches:
            runner.infer(batch)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
