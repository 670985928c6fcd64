"""Compute capabilities that TensorRT-RTX builds for, and what each has kernels for.

Sources: NVIDIA, TensorRT-RTX support matrix; the builder's own list (`tensorrt_rtx.ComputeCapability`, 1.7.1); builds
of single layers (`one_layer.py`).
"""

from __future__ import annotations

from objectives.runtimes.support import COMPUTES, Support, SupportKind
from objectives.runtimes.tensorrt import rules as tensorrt
from search_spaces.errors import InputError
from search_spaces.formats import Format, NumberSpec

Capability = tuple[int, int]

#: What the builder of 1.7.1 lists; engines run on no other GPU, not on an H100 (9.0).
CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
#: ``{ONNX type: the least capability whose GPUs have it}``; elsewhere its builds end with "HW-specific datatypes".
_HARDWARE: dict[str, Capability] = {"FLOAT8E4M3FN": (8, 9), "FLOAT4E2M1": (12, 0)}


def parse_capability(text: str) -> Capability:
    """``"12.0"`` to ``(12, 0)``.

    Raises:
        InputError: TensorRT-RTX builds for none such.
    """
    capability = tensorrt.parse_capability(text)
    if capability not in CAPABILITIES:
        known = ", ".join(map(capability_text, CAPABILITIES))
        raise InputError(f"compute capability {text!r}: TensorRT-RTX builds for {known}; an RTX 5090 has 12.0")
    return capability


def capability_text(capability: Capability) -> str:
    """``(12, 0)`` as ``12.0``."""
    return "{}.{}".format(*capability)


def lacks(fmt: Format, capability: Capability) -> str:
    """Why GPUs of a capability, or TensorRT-RTX itself, cannot have a format; empty where they can."""
    for number in (fmt.weight, fmt.activation):
        if why := _missing(number, capability):
            return why
    return tensorrt.refusal(fmt)


def _missing(number: NumberSpec, capability: Capability) -> str:
    least = _HARDWARE.get(number.onnx)
    if least is None or capability >= least:
        return ""
    return (
        f"needs {number.name}, which GPUs have from compute capability {capability_text(least)} on "
        f"(this is {capability_text(capability)}); choose int8 or w4a16"
    )


def rtx_support(fmt: Format, capability: Capability) -> Support:
    """What a format gives on GPUs of a capability."""
    if why := lacks(fmt, capability):
        return Support(SupportKind.IMPOSSIBLE, f"{fmt.name} {why}")
    if fmt.weight == fmt.activation:
        return COMPUTES
    return Support(SupportKind.STORES, "weights are stored packed and computed with in fp16: size only")
