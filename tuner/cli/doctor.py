"""What this machine can do and what is missing; behind ``tuner doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from objectives.devices.cpu import cpu_flags, describe_int8
from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.registry import RUNTIMES
from objectives.runtimes.runtime import Finding

_GIB = float(2**30)


def diagnose(folder: Path | None = None) -> list[Finding]:
    """Looks at this machine; never raises, whatever is absent.

    Args:
        folder: Where runs would be written; the current folder by default.
    """
    place = folder or Path.cwd()
    checks: list[tuple[str, bool, Callable[[], list[Finding]]]] = [
        ("python", True, _python),
        ("cpu", False, _cpu),
        ("memory", False, _memory),
        ("disk", True, lambda: _disk(place)),
        ("sqlite", True, lambda: _sqlite(place)),
        ("gpu", False, _gpu),
        *((name, name == DEFAULT_RUNTIME, RUNTIMES.get(name).findings) for name in RUNTIMES.names()),
        ("extras", False, _extras),
    ]
    found = []
    for name, required, check in checks:
        try:
            found += check()
        except Exception as error:  # a doctor that dies of what it looks for is of no use
            message = " ".join(str(error).split())[:200]
            text = f"could not be examined ({type(error).__name__}: {message})"
            found.append(Finding(name, False, text, "see the message", required))
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> list[Finding]:
    ok = sys.version_info >= (3, 10)
    detail = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return [Finding("python", ok, detail, "" if ok else "install Python 3.10 or newer", True)]


def _cpu() -> list[Finding]:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    flags = cpu_flags(text)
    if not flags and platform.machine().lower() in ("arm64", "aarch64") and platform.system() == "Darwin":
        flags = frozenset({"asimddp"})  # every Apple processor has it
    models = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    fast, detail = describe_int8(flags)
    remedy = "" if fast else "measure before trusting: int8 may be no faster than fp32 here"
    logical = psutil.cpu_count() or os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    cores = f"{model}; {physical} cores, {logical} threads, {usable} usable by this process"
    return [
        Finding(
            "cores",
            usable >= 2,
            cores,
            "" if usable >= 2 else "one core measures and evaluates in turn: slower",
        ),
        Finding("int8 instructions", fast, detail, remedy),
    ]


def _memory() -> list[Finding]:
    memory = psutil.virtual_memory()
    ok = memory.available >= 4 * _GIB
    detail = f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} GiB available"
    return [Finding("memory", ok, detail, "" if ok else "a study takes up to 4 GiB: close other programs")]


def _disk(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(folder).free
    ok = free >= 5 * _GIB
    remedy = "" if ok else "a run keeps models and cached images: free some space or choose another folder with --run"
    return [Finding("disk", ok, f"{free / _GIB:.1f} GiB free at {folder}", remedy, free < _GIB)]


def _sqlite(folder: Path) -> list[Finding]:
    detail = f"SQLite {sqlite3.sqlite_version}"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".tuner-doctor-") as scratch:
            connection = sqlite3.connect(Path(scratch) / "probe.db")
            try:
                mode = str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]).lower()
            finally:
                connection.close()
    except (OSError, sqlite3.Error) as error:
        remedy = "choose a writable local folder for the run with --run"
        return [Finding("sqlite", False, f"{detail}; {folder} cannot hold a database ({error})", remedy, True)]
    ok = mode == "wal" and sqlite3.sqlite_version_info >= (3, 7)
    remedy = "" if ok else "put the run folder on a local disk: WAL does not work on network file systems"
    return [Finding("sqlite", ok, f"{detail}, journal mode {mode} in {folder}", remedy, True)]


def _gpu() -> list[Finding]:
    if importlib.util.find_spec("pynvml") is None:
        seen = Path("/proc/driver/nvidia/version").exists()
        detail = "an NVIDIA driver is loaded, but nvidia-ml-py is missing" if seen else "no NVIDIA GPU found"
        return [Finding("gpu", False, detail, 'pip install "tuner[tensorrt]"' if seen else "only for GPU runtimes")]
    devices = _devices()
    if isinstance(devices, str):
        return [Finding("gpu", False, devices, "only for GPU runtimes: install a GPU and its driver")]
    return [
        Finding(
            "gpu",
            True,
            "; ".join(f"{name}, sm_{major}{minor}, {memory:.0f} GiB" for name, (major, minor), memory in devices[1])
            + f"; driver {devices[0]}",
        )
    ]


def _devices() -> tuple[str, list[tuple[str, tuple[int, int], float]]] | str:
    """Driver and ``(name, compute capability, GiB)`` of each GPU, or why there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        return f"no usable NVIDIA driver ({error})"
    try:
        driver = _decoded(pynvml.nvmlSystemGetDriverVersion())
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / _GIB
            devices.append((_decoded(pynvml.nvmlDeviceGetName(handle)), (int(major), int(minor)), memory))
        return (driver, devices) if devices else "the NVIDIA driver shows no GPU"
    except Exception as error:
        return f"the NVIDIA driver does not answer ({error})"
    finally:
        pynvml.nvmlShutdown()


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _extras() -> list[Finding]:
    found = []
    for name, purpose in (
        ("torch", "reads .pt files"),
        ("ultralytics", "loads YOLO checkpoints; AGPL-3.0"),
        ("nvidia-modelopt", "sensitivity method modelopt"),
    ):
        version = _version(name)
        detail = f"{version} ({purpose})" if version else f"not installed ({purpose})"
        found.append(Finding(name, version is not None, detail, "" if version else 'pip install "tuner[torch]"'))
    return found
