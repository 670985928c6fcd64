"""What depends on TensorRT's version, as plain data: graph dialect, builder flags, formats.

Sources: NVIDIA, TensorRT support matrix (precisions by compute capability) and developer guide, sections "Strongly
typed networks", "Working with quantized types" and "Reduced precision". TensorRT 8.6 was run; what is said of 10 and
later rests on that documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from objectives.runtimes.support import COMPUTES, Support, SupportKind
from search_spaces.errors import InputError
from search_spaces.formats import Format, NumberSpec

#: ``{ONNX type of quantized activations: (TensorRT, compute capability)}`` from which on there are kernels.
_KERNELS = {"INT8": ((0, 0), (6, 1)), "FLOAT8E4M3FN": ((10, 0), (8, 9))}
#: Likewise of quantized weights alone; on older GPUs TensorRT-RTX 1.7.1 ends with "HW-specific datatypes: fp4_e2m1".
_STORED = {"FLOAT4E2M1": ((10, 8), (10, 0))}


@dataclass(frozen=True)
class BuilderSettings:
    """The study's choices for the engine builder.

    Attributes:
        optimization_level: 0 (fast to build) to 5 (fast to run).
        workspace_mib: Bound of the scratch memory of one layer, MiB; None: the whole device.
        tactic_sources: Names of `tensorrt.TacticSource`; None: TensorRT's default.
        timing_iterations: Iterations of each average when the builder times a tactic (``avg_timing_iterations`` of
            `tensorrt.IBuilderConfig`, 1 by default; ``--avgTiming`` of NVIDIA's trtexec, 8 by default).
        device: Index of the GPU among the visible ones.
    """

    optimization_level: int = 3
    workspace_mib: int | None = None
    tactic_sources: tuple[str, ...] | None = None
    timing_iterations: int = 1
    device: int = 0


@dataclass(frozen=True)
class BuildFlags:
    """How a network is created and its precision chosen.

    Attributes:
        strongly_typed: The graph's types are the engine's.
        fp16: Builder flag, for graphs that are not strongly typed.
        int8: Builder flag, likewise; ranges come from Q/DQ, never from a calibrator.
        precision_constraints: ``obey``, or None where types decide.
    """

    strongly_typed: bool
    fp16: bool
    int8: bool
    precision_constraints: str | None


def parse_version(version: str) -> tuple[int, int]:
    """``"8.6.0"`` to ``(8, 6)``.

    Raises:
        InputError: It is not a version.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise InputError(f"TensorRT version {version!r}: not a version; give one such as 10.13")
    return int(found[1]), int(found[2])


def parse_capability(text: str) -> tuple[int, int]:
    """``"8.9"``, ``"89"`` or ``"sm_89"`` to ``(8, 9)``.

    Raises:
        InputError: It is no compute capability.
    """
    found = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if found is None:
        raise InputError(f"compute capability {text!r}: is none; give one such as 8.9 (RTX 4090) or 12.0 (RTX 5090)")
    return int(found[1]), int(found[2])


def strongly_typed(version: str) -> bool:
    """Whether this TensorRT is given graphs whose own types are the engine's."""
    return parse_version(version) >= (10, 0)


def build_flags(version: str) -> BuildFlags:
    """How to build: types decide from TensorRT 10 on, flags and obeyed constraints before."""
    if strongly_typed(version):
        return BuildFlags(strongly_typed=True, fp16=False, int8=False, precision_constraints=None)
    return BuildFlags(strongly_typed=False, fp16=True, int8=True, precision_constraints="obey")


def refusal(fmt: Format) -> str:
    """Why no strongly typed network can have a format; empty where one can.

    A layer with quantized inputs wants its weight in the inputs' own type. Source: TensorRT-RTX 1.7.1 builds nothing
    else ("Assertion dtype == W.type() failed"); with a second pair on the weight it builds, larger and slower than with
    weights in the inputs' type.
    """
    if not fmt.activation.quantized:
        return ""
    if fmt.activation.onnx not in _KERNELS:
        return f"has {fmt.activation.name} inputs, in which TensorRT does not compute; choose int8, fp8 or w8a16"
    if fmt.weight == fmt.activation:
        return ""
    return (
        f"has {fmt.weight.name} weights beside {fmt.activation.name} inputs, which TensorRT does not build; choose a "
        "format with both alike (int8, fp8) or with quantized weights alone (w8a16, w4a16)"
    )


def support(fmt: Format, version: str, compute_capability: tuple[int, int]) -> Support:
    """What a format gives on this TensorRT and GPU.

    Args:
        fmt: The format.
        version: TensorRT's.
        compute_capability: E.g. ``(9, 0)``.

    Returns:
        Kernels take quantized weights only beside activations of the same number format.
    """
    number = fmt.activation
    if number.quantized and number.onnx not in _KERNELS:
        return Support(SupportKind.IMPOSSIBLE, f"TensorRT does not compute in {number.name}")
    if number.quantized and (why := _too_old(number, _KERNELS[number.onnx], version, compute_capability)):
        return Support(SupportKind.IMPOSSIBLE, why)
    stored = _STORED.get(fmt.weight.onnx) if strongly_typed(version) else None  # before, the builder gets floats
    if stored and (why := _too_old(fmt.weight, stored, version, compute_capability)):
        return Support(SupportKind.IMPOSSIBLE, why)
    if fmt.weight == number:
        return COMPUTES
    if strongly_typed(version) and (why := refusal(fmt)):
        return Support(SupportKind.IMPOSSIBLE, f"{fmt.name} {why}")
    if number.quantized:
        text = "weights are unpacked to fp16 when the engine is built: size and numerics only"
    else:
        text = "weights are stored packed and computed with in fp16: size only"
    return Support(SupportKind.STORES, text)


def _too_old(
    number: NumberSpec,
    least: tuple[tuple[int, int], tuple[int, int]],
    version: str,
    compute_capability: tuple[int, int],
) -> str:
    """Why this TensorRT or GPU does not know a number format yet; empty where both do."""
    least_version, least_capability = least
    if parse_version(version) < least_version:
        needed = ".".join(map(str, least_version)).removesuffix(".0")
        return f"{number.name} needs TensorRT >= {needed} (this is {version})"
    if compute_capability < least_capability:
        needed, own = ("sm_{}{}".format(*pair) for pair in (least_capability, compute_capability))
        return f"{number.name} needs {needed} or newer (this is {own})"
    return ""
