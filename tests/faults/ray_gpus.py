"""Prints what two workers see that Ray gave one of two pretended GPUs each: run within a network of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tuner.workers.ray_workers import Place, RayWorker  # noqa: E402


def main() -> None:
    """The run folder is none, so the workers end at once and say so."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as scratch:
        os.environ |= {"RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        os.environ["PYTHONPATH"] = str(ROOT)
        ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
        run = Path(scratch) / "run"
        logs = [run / "workers" / f"worker-{index}.log" for index in range(2)]
        logs[0].parent.mkdir(parents=True)
        workers = []
        for log in logs:
            log.touch()
            actor = ray.remote(max_concurrency=3, num_gpus=1)(Place).remote(run, log, True, None)
            workers.append(RayWorker(ray, actor, log))
        seen: dict[int, str] = {}
        while any(worker.poll() is None for worker in workers):
            for process in psutil.process_iter():
                try:
                    if str(run) in process.cmdline() and process.cmdline()[-2:] == ["--device", "0"]:
                        seen[process.pid] = process.environ()["CUDA_VISIBLE_DEVICES"]
                except psutil.Error:
                    continue
            time.sleep(0.05)
        said = [log.read_text() for log in logs]
        ray.shutdown()
    print(json.dumps({"seen": sorted(seen.values()), "status": [worker.poll() for worker in workers], "said": said}))


if __name__ == "__main__":
    main()
