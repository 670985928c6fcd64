"""What ``tuner doctor`` says of TensorRT-RTX."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from objectives.devices.gpu import visible_gpus
from objectives.runners.interpreter import ask
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.runtime import Finding
from objectives.runtimes.support import SupportKind
from objectives.runtimes.tensorrt_rtx.capability import CAPABILITIES, capability_text, rtx_support
from search_spaces.formats import FORMATS

_NAME = "tensorrt-rtx"
_REMEDY = 'pip install "tuner[tensorrt-rtx]"'


def rtx_findings() -> list[Finding]:
    """Whether it is installed, builds here, and can run on a GPU of this machine."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return [Finding(_NAME, False, "not installed", _REMEDY)]
    version = importlib.metadata.version("tensorrt-rtx")
    code = "import tensorrt_rtx as t; t.Builder(t.Logger())"
    try:
        ask(code)
    except RuntimeUnavailable as error:
        return [Finding(_NAME, False, f"{version}, but makes no builder ({error})", f"{_REMEDY}, or check the driver")]
    return [Finding(_NAME, True, f"TensorRT-RTX {version} builds engines here; {_gpus()}; {_formats()}")]


def _gpus() -> str:
    try:
        found = {gpu.compute_capability for gpu in visible_gpus()}
    except RuntimeUnavailable:
        found = set()
    running = sorted(found & set(CAPABILITIES))
    if running:
        return f"runs them on this machine's GPU ({', '.join(map(capability_text, running))})"
    return "no GPU of this machine runs them"


def _formats() -> str:
    """What needs more than the oldest GPU."""
    words = []
    for capability in CAPABILITIES:
        support = {name: rtx_support(fmt, capability).kind for name, fmt in FORMATS.items()}
        names = [name for name, kind in support.items() if kind is SupportKind.COMPUTES]
        words.append(f"{capability_text(capability)} computes in {', '.join(names)}")
    return "; ".join(words)
