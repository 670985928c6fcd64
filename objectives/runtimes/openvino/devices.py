"""OpenVINO's devices: which there are, what one can do, and the properties that a model is compiled with."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.openvino.settings import OpenVinoSettings

if TYPE_CHECKING:
    import openvino

INSTALL = 'pip install "tuner[openvino]"'
#: What a device calls the element types that its floats can be computed in.
_CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}


@cache
def core() -> openvino.Core:
    """OpenVINO in this process.

    Raises:
        RuntimeUnavailable: It is not installed, or broken.
    """
    try:
        import openvino

        return openvino.Core()
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = "the Python package is missing" if missing else first_line(error)
        raise RuntimeUnavailable(f"openvino: {why}; install the extra: `{INSTALL}`") from None


@cache
def capabilities(device: str) -> frozenset[str]:
    """What a device says that it can do, e.g. ``FP32``, ``BF16``, ``INT8``, ``EXPORT_IMPORT``.

    Raises:
        RuntimeUnavailable: There is no such device here.
    """
    known = core().available_devices
    try:
        found = frozenset(map(str, core().get_property(device, "OPTIMIZATION_CAPABILITIES")))
    except RuntimeError as error:
        found, why = frozenset(), first_line(error)
    else:
        why = "its driver finds none"
    # A plugin answers for a device that is not there, and ``GPU`` is the first of ``GPU.0`` and ``GPU.1``.
    if not found or device not in {*known, *(name.partition(".")[0] for name in known)}:
        raise RuntimeUnavailable(
            f"runtime.device_name {device!r}: OpenVINO has no such device here ({why}); choose {', '.join(known)}"
        )
    return found


def check(settings: OpenVinoSettings) -> None:
    """Looks whether the device is there, can keep compiled models, and computes in the wanted precision.

    Raises:
        RuntimeUnavailable: It is not, or does not.
    """
    found, device = capabilities(settings.device_name), settings.device_name
    if "EXPORT_IMPORT" not in found:
        raise RuntimeUnavailable(f"runtime.device_name {device!r}: cannot keep compiled models; choose CPU")
    if _CAPABILITIES[settings.precision] not in found:
        able = ", ".join(name for name, capability in _CAPABILITIES.items() if capability in found)
        raise RuntimeUnavailable(f"runtime.precision {settings.precision}: {device} does not have it; choose {able}")


def properties(settings: OpenVinoSettings) -> dict[str, Any]:
    """What a model is compiled with: for the latency of single inferences, in the precision that was asked for.

    Weights in few bits do not make activations int8 behind the user's back (``DYNAMIC_QUANTIZATION_GROUP_SIZE``), and
    threads are not bound to cores, where workers would stand in each other's way.

    Raises:
        RuntimeUnavailable: OpenVINO or the device is not there.
    """
    capabilities(settings.device_name)
    wanted = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": settings.precision}
    if settings.device_name == "CPU":
        wanted |= {"INFERENCE_NUM_THREADS": settings.threads, "ENABLE_CPU_PINNING": False}
    if "DYNAMIC_QUANTIZATION_GROUP_SIZE" in core().get_property(settings.device_name, "SUPPORTED_PROPERTIES"):
        wanted["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    return wanted


def full_name(device: str) -> str:
    """The device's name, e.g. ``Intel(R) Xeon(R) ...``."""
    return str(core().get_property(device, "FULL_DEVICE_NAME"))


def version() -> str:
    """Of the installed OpenVINO, as its package has it; raises `RuntimeUnavailable` where there is none."""
    core()
    from importlib import metadata

    return metadata.version("openvino")


def first_line(error: BaseException) -> str:
    """What an error says at last: OpenVINO puts the places of its own code first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0]
