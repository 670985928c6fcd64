"""What ``tuner doctor`` says of TensorRT."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from objectives.devices.gpu import visible_gpus
from objectives.runners.interpreter import ask
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.runtime import Finding
from objectives.runtimes.support import SupportKind
from objectives.runtimes.tensorrt.rules import support
from search_spaces.formats import FORMATS

_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
_NAME = "tensorrt"


#: A GPU that has every kernel, where it is not known which one there is.
_ANY_GPU = (99, 0)


def tensorrt_formats(version: str, capability: tuple[int, int] | None) -> str:
    """What a TensorRT version does with each format on a GPU, in words.

    Args:
        version: E.g. ``8.6.1`` or ``10.9.0.34``.
        capability: Compute capability, e.g. ``(8, 9)``; None if unknown.
    """
    answers = {name: support(fmt, version, capability or _ANY_GPU) for name, fmt in FORMATS.items()}
    words = []
    for kind, verb in ((SupportKind.COMPUTES, "computes in"), (SupportKind.STORES, "stores")):
        names = [name for name, answer in answers.items() if answer.kind is kind]
        words += [f"{verb} {', '.join(names)}"] if names else []
    refused = dict.fromkeys(answer.text for answer in answers.values() if answer.kind is SupportKind.IMPOSSIBLE)
    return "; ".join([*words, *refused]) + ("" if capability else "; as far as the GPU has the kernels")


def tensorrt_findings() -> list[Finding]:
    """Whether it is installed, can be imported, and what it allows here."""
    remedy = 'pip install "tuner[tensorrt]"'
    if importlib.util.find_spec(_NAME) is None:
        return [Finding(_NAME, False, "not installed", remedy)]
    try:
        version = ask("import tensorrt; print(tensorrt.__version__)")
    except RuntimeUnavailable as error:
        named = [f"{name} {held}" for name in _PACKAGES if (held := _version(name))]
        return [Finding(_NAME, False, f"{', '.join(named) or 'found'}, but cannot be imported ({error})", remedy)]
    try:
        gpus = visible_gpus()
    except RuntimeUnavailable:
        gpus = []
    capability = gpus[0].compute_capability if gpus else None
    return [Finding(_NAME, True, f"TensorRT {version}; {tensorrt_formats(version, capability)}")]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
