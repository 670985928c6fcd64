"""The GPU as NVML sees it: who it is, how fast it runs right now, and who else uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from objectives.devices.lock import device_users
from objectives.runners.runner import RuntimeUnavailable

# Reasons for a lower clock that disturb a measurement, by NVML's constant. Left out: an idle GPU, and clocks that
# somebody set on purpose.
_REASONS = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSyncBoost": "sync boost",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "thermal slowdown (driver)",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "thermal slowdown (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Among the visible ones.
        name: E.g. ``NVIDIA H200``.
        uuid: Unique name, the same in every process and after a restart.
        driver: Version.
        compute_capability: E.g. ``(9, 0)``.
        memory_mib: Memory, MiB.
    """

    index: int
    name: str
    uuid: str
    driver: str
    compute_capability: tuple[int, int]
    memory_mib: int


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment; 0 or empty where the driver does not tell.

    Attributes:
        sm_mhz: Clock of the multiprocessors, MHz.
        memory_mhz: Clock of the memory, MHz.
        temperature_c: Degrees Celsius.
        power_w: Watts.
        throttle: Why the clock is lower than it could be, in plain words.
        foreign: Process ids of others that compute on it.
    """

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    power_w: float
    throttle: tuple[str, ...]
    foreign: tuple[int, ...]


def find_gpu(index: int = 0) -> Gpu:
    """Finds a GPU by its index among the visible ones (``CUDA_VISIBLE_DEVICES``).

    Raises:
        RuntimeUnavailable: There is no driver, or no such GPU.
    """
    with _nvml() as nvml:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible_devices(visible, nvml.nvmlDeviceGetCount())
        if not 0 <= index < len(names):
            said = f" (CUDA_VISIBLE_DEVICES={visible})" if visible is not None else ""
            raise RuntimeUnavailable(f"runtime.device: {index}: {len(names)} GPUs are visible{said}")
        return _gpu(nvml, index, names[index])


def gpu_facts(gpu: Gpu) -> dict[str, Any]:
    """What names a GPU in a run's identity; not which of its kind: each is timed against its own reference."""
    return {"gpu": gpu.name, "driver": gpu.driver, "compute_capability": ".".join(map(str, gpu.compute_capability))}


def visible_gpus() -> list[Gpu]:
    """All visible GPUs, in CUDA's order.

    Raises:
        RuntimeUnavailable: There is no driver, or ``CUDA_VISIBLE_DEVICES`` names what is no GPU.
    """
    with _nvml() as nvml:
        names = visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), nvml.nvmlDeviceGetCount())
        return [_gpu(nvml, index, name) for index, name in enumerate(names)]


def read_state(gpu: Gpu, own: Collection[int] | None = None) -> GpuState:
    """Reads clocks, temperature, power, throttle reasons and foreign processes.

    Args:
        gpu: Which.
        own: Process ids that are no strangers; by default this process's family and all that hold the device by turns.
    """
    turns = device_users(gpu.uuid)
    with _nvml() as nvml:
        handle = _handle(nvml, gpu.uuid)

        def ask(function: str, *arguments: Any) -> Any:
            """None where the driver does not support the question."""
            try:
                return getattr(nvml, function)(handle, *arguments)
            except (nvml.NVMLError, AttributeError):
                return None

        mask = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        known = {name: getattr(nvml, name, 0) for name in _REASONS}
        running = ask("nvmlDeviceGetComputeRunningProcesses") or []
        return GpuState(
            ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM) or 0,
            ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM) or 0,
            ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU) or 0,
            (ask("nvmlDeviceGetPowerUsage") or 0) / 1000,
            throttle_reasons(mask, known),
            foreign(
                [process.pid for process in running],
                own if own is not None else family() | turns,
                hidden=max(1, len(turns)),
            ),
        )


def visible_devices(variable: str | None, count: int) -> list[str]:
    """Names of the visible GPUs as CUDA counts them: indices or UUIDs; the list ends at the first invalid one.

    Args:
        variable: ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        count: GPUs of the machine.
    """
    if variable is None:
        return [str(index) for index in range(count)]
    names: list[str] = []
    for part in (text.strip() for text in variable.split(",")):
        number = part.isdigit() and int(part) < count
        if not (number or part.startswith(("GPU-", "MIG-"))) or part in names:
            break
        names.append(part)
    return names


def throttle_reasons(mask: int, known: dict[str, int]) -> tuple[str, ...]:
    """The disturbing reasons of NVML's bit mask, in plain words."""
    return tuple(_REASONS[name] for name, bit in known.items() if bit and mask & bit)


def foreign(
    running: Iterable[int],
    own: Collection[int],
    exists: Callable[[int], bool] = psutil.pid_exists,
    hidden: int = 1,
) -> tuple[int, ...]:
    """The processes on the GPU that are not ours.

    In a container NVML may tell process ids of the host. An id that means nothing here may then be our own, so
    as many unknown ones as we are are taken for us; more than that cannot all be.

    Args:
        running: Process ids that NVML tells.
        own: Ours.
        exists: Whether an id is a process here.
        hidden: How many processes of ours may be on the GPU.
    """
    ids = set(running)
    unknown = sorted(pid for pid in ids if not exists(pid))
    strangers = sorted(pid for pid in ids if exists(pid) and pid not in own)
    seen_ourselves = any(pid in own for pid in ids)
    return tuple(strangers + (unknown if seen_ourselves or len(unknown) > hidden else []))


def family() -> frozenset[int]:
    """This process, its ancestors, and all their descendants below the topmost that is a ``tuner`` or Python."""
    me = psutil.Process()
    top = me
    for parent in me.parents():
        try:
            if "python" not in parent.name() and "tuner" not in parent.name():
                break
        except psutil.Error:
            break
        top = parent
    return frozenset({me.pid, top.pid, *(process.pid for process in top.children(recursive=True))})


@contextmanager
def _nvml() -> Any:
    """NVML, initialized.

    Raises:
        RuntimeUnavailable: Its package or the driver is missing.
    """
    try:
        import pynvml
    except ImportError:
        raise RuntimeUnavailable(
            "GPU: the Python package nvidia-ml-py is missing; install the extra: `pip install tuner[tensorrt]`"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise RuntimeUnavailable(
            f"GPU: NVIDIA's driver does not answer ({error}); `tuner doctor` says what is there"
        ) from None
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, name: str) -> Gpu:
    try:
        handle = _handle(nvml, name)
    except nvml.NVMLError as error:
        raise RuntimeUnavailable(f"GPU {name!r}: {error}; correct CUDA_VISIBLE_DEVICES") from None
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        _text(nvml.nvmlSystemGetDriverVersion()),
        (int(major), int(minor)),
        int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20,
    )


def _handle(nvml: Any, name: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
