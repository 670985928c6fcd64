"""What ``tuner doctor`` says of TensorRT-RTX."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys

from objectives.devices.gpu import visible_gpus
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
    # In a process of its own: a broken library can take the interpreter with it.
    code = "import tensorrt_rtx as t; t.Builder(t.Logger())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return [Finding(_NAME, False, f"{version}, but making a builder takes longer than 120 s", "check the driver")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [Finding(_NAME, False, f"{version}, but makes no builder ({last})", _REMEDY)]
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
