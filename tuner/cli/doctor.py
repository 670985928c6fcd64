"""What this machine can do and what is missing; behind ``tuner doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from objectives.devices.cpu import cpu_flags, describe_int8

_GIB = float(2**30)
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        ok: Whether it is as it should be.
        detail: What was found, one line.
        remedy: What to do; empty where nothing is needed.
        required: Whether ``tuner run`` on the CPU needs it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = False


def diagnose(folder: Path | None = None) -> list[Check]:
    """Looks at this machine; never raises, whatever is absent.

    Args:
        folder: Where runs would be written; the current folder by default.
    """
    place = folder or Path.cwd()
    checks: list[tuple[str, bool, Callable[[], list[Check]]]] = [
        ("python", True, _python),
        ("onnxruntime", True, _onnxruntime),
        ("cpu", False, _cpu),
        ("memory", False, _memory),
        ("disk", True, lambda: _disk(place)),
        ("sqlite", True, lambda: _sqlite(place)),
        ("gpu", False, _gpu),
        ("tensorrt", False, _tensorrt),
        ("extras", False, _extras),
    ]
    found = []
    for name, required, check in checks:
        try:
            found += check()
        except Exception as error:  # a doctor that dies of what it looks for is of no use
            message = " ".join(str(error).split())[:200]
            text = f"could not be examined ({type(error).__name__}: {message})"
            found.append(Check(name, False, text, "see the message", required))
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> list[Check]:
    ok = sys.version_info >= (3, 10)
    detail = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return [Check("python", ok, detail, "" if ok else "install Python 3.10 or newer", True)]


def _onnxruntime() -> list[Check]:
    installed = [f"{name} {version}" for name in _RUNTIMES if (version := _version(name))]
    if len(installed) > 1:
        detail = f"{' and '.join(installed)} at once: they overwrite each other's files"
        remedy = (
            "pip uninstall -y " + " ".join(text.split()[0] for text in installed) + ", then pip install tuner again"
        )
        return [Check("onnxruntime", False, detail, remedy, True)]
    try:
        import onnxruntime
    except Exception as error:
        detail = f"{installed[0] if installed else 'not installed'}; cannot be imported ({error})"
        return [Check("onnxruntime", False, detail, "pip install tuner", True)]
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    title = installed[0] if installed else f"onnxruntime {onnxruntime.__version__}"
    cuda = "CUDA" in providers
    return [
        Check("onnxruntime", "CPU" in providers, f"{title}; providers {', '.join(providers)}", "", True),
        Check(
            "onnxruntime-cuda",
            cuda,
            "this build holds the CUDA provider; it needs an NVIDIA GPU and the CUDA and cuDNN that it was built for"
            if cuda
            else "no CUDA provider",
            "" if cuda else "runtime onnxruntime-cuda needs onnxruntime-gpu (Linux or Windows, x86-64)",
        ),
    ]


def _cpu() -> list[Check]:
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
        Check(
            "cores",
            usable >= 2,
            cores,
            "" if usable >= 2 else "one core measures and evaluates in turn: slower",
        ),
        Check("int8 instructions", fast, detail, remedy),
    ]


def _memory() -> list[Check]:
    memory = psutil.virtual_memory()
    ok = memory.available >= 4 * _GIB
    detail = f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} GiB available"
    return [Check("memory", ok, detail, "" if ok else "a study takes up to 4 GiB: close other programs")]


def _disk(folder: Path) -> list[Check]:
    free = shutil.disk_usage(folder).free
    ok = free >= 5 * _GIB
    remedy = "" if ok else "a run keeps models and cached images: free some space or choose another folder with --run"
    return [Check("disk", ok, f"{free / _GIB:.1f} GiB free at {folder}", remedy, free < _GIB)]


def _sqlite(folder: Path) -> list[Check]:
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
        return [Check("sqlite", False, f"{detail}; {folder} cannot hold a database ({error})", remedy, True)]
    ok = mode == "wal" and sqlite3.sqlite_version_info >= (3, 7)
    remedy = "" if ok else "put the run folder on a local disk: WAL does not work on network file systems"
    return [Check("sqlite", ok, f"{detail}, journal mode {mode} in {folder}", remedy, True)]


def _gpu() -> list[Check]:
    if importlib.util.find_spec("pynvml") is None:
        seen = Path("/proc/driver/nvidia/version").exists()
        detail = "an NVIDIA driver is loaded, but nvidia-ml-py is missing" if seen else "no NVIDIA GPU found"
        return [Check("gpu", False, detail, 'pip install "tuner[tensorrt]"' if seen else "only for GPU runtimes")]
    devices = _devices()
    if isinstance(devices, str):
        return [Check("gpu", False, devices, "only for GPU runtimes: install a GPU and its driver")]
    return [
        Check(
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


def tensorrt_formats(version: str, capability: tuple[int, int] | None) -> str:
    """What a TensorRT version allows on a GPU, in words.

    Args:
        version: E.g. ``8.6.1`` or ``10.9.0.34``.
        capability: Compute capability, e.g. ``(8, 9)``; None if unknown.
    """
    number = version.split(".", 1)[0]
    modern = number.isdigit() and int(number) >= 10
    formats = ["fp16", "int8"]
    if modern:
        formats.append("w4a16 (stored, GEMM only)")
        if capability is not None and capability >= (8, 9):
            formats.append("fp8")
    text = "formats " + ", ".join(formats)
    if not modern:
        return text + "; fp8 and int4 need TensorRT 10 or newer"
    if capability is None:
        return text + "; fp8 with sm_89 or newer"
    return text if capability >= (8, 9) else text + f"; no fp8: sm_{capability[0]}{capability[1]} is below sm_89"


def _tensorrt() -> list[Check]:
    remedy = 'pip install "tuner[tensorrt]"'
    if importlib.util.find_spec("tensorrt") is None:
        return [Check("tensorrt", False, "not installed", remedy)]
    # In a process of its own: a broken CUDA library can take the interpreter with it.
    code = "import tensorrt; print(tensorrt.__version__)"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return [Check("tensorrt", False, "installed, but importing it takes longer than 120 s", "check the driver")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        named = [f"{name} {version}" for name in _TENSORRT if (version := _version(name))]
        return [Check("tensorrt", False, f"{', '.join(named) or 'found'}, but cannot be imported ({last})", remedy)]
    version = done.stdout.strip().splitlines()[-1]
    devices = _devices() if importlib.util.find_spec("pynvml") is not None else ""
    capability = None if isinstance(devices, str) else devices[1][0][1]
    return [Check("tensorrt", True, f"TensorRT {version}; {tensorrt_formats(version, capability)}")]


def _extras() -> list[Check]:
    found = []
    for name, purpose in (
        ("torch", "reads .pt files"),
        ("ultralytics", "loads YOLO checkpoints; AGPL-3.0"),
        ("nvidia-modelopt", "sensitivity method modelopt"),
    ):
        version = _version(name)
        detail = f"{version} ({purpose})" if version else f"not installed ({purpose})"
        found.append(Check(name, version is not None, detail, "" if version else 'pip install "tuner[torch]"'))
    return found
