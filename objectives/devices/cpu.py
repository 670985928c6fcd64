"""Which int8 instructions a processor has: they decide whether int8 is fast, and what it computes.

Without dot products in hardware ONNX Runtime multiplies unsigned by signed bytes in 16-bit instructions that saturate:
uniform int8 of yolov10s (320 pixels, 64 images) lost 7.7 mAP points on such a processor.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def cpu_flags(text: str) -> frozenset[str]:
    """Instruction set flags from the text of ``/proc/cpuinfo`` (x86 ``flags``, Arm ``Features``)."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(value.lower().split())
    return frozenset()


def describe_int8(flags: frozenset[str]) -> tuple[bool, str]:
    """Whether int8 is fast with these flags, and why.

    Returns:
        ``(fast, text)``; `fast` is False where int8 runs through 16-bit instructions or nothing is known.
    """
    fast = [
        ("amx_int8", "AMX int8 tiles"),
        ("avx512_vnni", "AVX-512 VNNI"),
        ("avx_vnni", "AVX VNNI"),
        ("i8mm", "Arm i8mm"),
        ("asimddp", "Arm dot product"),
    ]
    names = [text for flag, text in fast if flag in flags]
    if names:
        return True, f"int8 dot products in hardware: {', '.join(names)}"
    if "avx2" in flags:
        return False, "AVX2 without VNNI: int8 gains less, and signed-by-unsigned products may saturate"
    return False, "no int8 instructions found" if flags else "instruction set not readable on this system"


def int8_instructions() -> str:
    """What this machine's processor has, in words; empty where the system does not tell."""
    try:
        return describe_int8(cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8")))[1]
    except OSError:
        return ""


def cpu_facts() -> dict[str, Any]:
    """What names the processor in a run's identity.

    Processors of one name differ in what they compute: some hypervisors hide the model, and some the instructions.
    """
    return {"cpu": _model(), "cores": os.cpu_count() or 0, "int8": int8_instructions()}


def _model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
