"""Worker processes of this host, spread over its GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from objectives.devices.gpu import Gpu, find_gpu, visible_gpus
from objectives.devices.waiting import TOLD, told
from objectives.runtimes.registry import RUNTIMES
from objectives.runtimes.settings import RuntimeSettings
from search_spaces.regular import open_appending
from tuner.workers.supervisor import Start


class LocalWorker:
    """A worker in a session of its own, out of reach of the terminal's Ctrl-C; it ends with our end of its stdin.

    Args:
        run: Folder of the run.
        log: File that its words are added to.
        tells: Whether it tells people, in its starter's place, for whom it waits; one of all workers does.
        one_gpu: Whether it sees no GPU but its own, whatever the study's ``runtime.device`` counts here.
        gpu: Its GPU, as ``CUDA_VISIBLE_DEVICES`` names it; by default this process's.
    """

    def __init__(
        self, run: Path, log: Path, *, tells: bool = False, one_gpu: bool = False, gpu: str | None = None
    ) -> None:
        command = [sys.executable, "-m", "tuner", "worker", str(run), "--attached"]
        command += ["--device", "0"] if one_gpu else []
        own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        seen = [os.dup(told())] if tells and sys.platform != "win32" else []  # its stderr has that number
        own[TOLD] = str(seen[0]) if seen else ""
        try:
            with open_appending(log) as file:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **own},
                    pass_fds=seen,
                    start_new_session=True,
                )
        finally:
            for descriptor in seen:
                os.close(descriptor)

    def poll(self) -> int | None:
        """Its exit status; None as long as it runs."""
        return self._process.poll()

    def waiting(self) -> bool:
        """It runs at once."""
        return False

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait()

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()

    def end(self, seconds: float) -> None:
        """Waits so long for its end, then sends SIGKILL."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()


def local_start(runtime: RuntimeSettings, count: int) -> Start:
    """Starts workers here, each on a GPU of its own where there are as many of the study's kind.

    Args:
        runtime: The study's.
        count: Number of workers.
    """
    if not RUNTIMES.get(runtime.name).gpu:
        return lambda index, run, log: LocalWorker(run, log, tells=index == 0)
    gpus = spread(find_gpu(runtime.device), visible_gpus(), count)
    return lambda index, run, log: LocalWorker(run, log, tells=index == 0, one_gpu=True, gpu=gpus[index].uuid)


def spread(first: Gpu, visible: Sequence[Gpu], count: int) -> list[Gpu]:
    """Gives each worker a GPU: those of the first one's model take turns, the first one begins.

    Args:
        first: The GPU that the study names.
        visible: All that may be used.
        count: Number of workers.
    """
    alike = [gpu for gpu in visible if _model(gpu) == _model(first) and gpu.uuid != first.uuid]
    turns = [first, *alike]
    return [turns[index % len(turns)] for index in range(count)]


def _model(gpu: Gpu) -> tuple[str, tuple[int, int]]:
    return gpu.name, gpu.compute_capability
