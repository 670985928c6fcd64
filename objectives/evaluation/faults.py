"""Faults on purpose: makes an evaluating child fail in a chosen way, to show that the study survives it.

Off unless the environment names a plan file in ``TUNER_FAULTS``. Each line of it is ``STEP KIND``; the first line is
taken, and removed, by the first evaluation that reaches its step. Faults that the machine can really suffer are
really provoked: the process dies by a true signal, memory is truly exhausted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

VARIABLE = "TUNER_FAULTS"
KINDS = ("segv", "abort", "kill", "memory", "gpu_memory", "illegal_access", "hang")


def fault_at(step: str, alone: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
    """Suffers the next fault of the plan if it is meant for this step.

    Args:
        step: ``materialize``, ``build``, ``evaluate`` or ``time``.
        alone: Holds the device alone: a GPU's full memory must not fail what others do there.
    """
    plan = os.environ.get(VARIABLE)
    if not plan:
        return
    path = Path(plan)
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    if not lines or not lines[0].startswith(f"{step} "):
        return
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    _suffer(lines[0].split()[1], alone)


def _suffer(kind: str, alone: Callable[[], AbstractContextManager[None]]) -> None:
    if kind == "segv":
        ctypes.string_at(0)
    elif kind == "abort":
        os.abort()
    elif kind == "kill":  # as the kernel does when memory runs out
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "memory":
        hold = bytearray(2**62)
        hold[0] = 1
    elif kind == "gpu_memory":
        with alone():
            _exhaust_gpu()
    elif kind == "illegal_access":
        _illegal_access()
    elif kind == "hang":
        # Blocks inside one C call with the interpreter's lock held, as a stuck driver call would.
        ctypes.PyDLL(None).sleep(10**6)
        time.sleep(10**6)
    else:
        raise ValueError(f"{VARIABLE}: {kind!r} is not one of {', '.join(KINDS)}")


def _exhaust_gpu() -> None:
    """Allocates device memory until CUDA refuses."""
    from cuda.bindings import runtime as cudart

    from objectives.devices.cuda import call

    taken = []
    try:
        while True:
            taken.append(call(cudart.cudaMalloc, 2**32))
    finally:
        for address in taken:
            cudart.cudaFree(address)


def _illegal_access() -> None:
    """Runs a kernel that writes to an address that is not the process's."""
    from objectives.devices.cuda import write_out_of_bounds

    write_out_of_bounds()
