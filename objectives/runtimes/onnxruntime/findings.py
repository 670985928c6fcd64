"""What ``tuner doctor`` says of ONNX Runtime."""

from __future__ import annotations

import importlib.metadata

from objectives.runtimes.runtime import Finding

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def cpu_findings() -> list[Finding]:
    """Whether one build is installed, and what it offers."""
    installed = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    if len(installed) > 1:
        detail = f"{' and '.join(installed)} at once: they overwrite each other's files"
        names = " ".join(text.split()[0] for text in installed)
        return [Finding("onnxruntime", False, detail, f"pip uninstall -y {names}, then pip install tuner again", True)]
    try:
        import onnxruntime
    except Exception as error:
        detail = f"{installed[0] if installed else 'not installed'}; cannot be imported ({error})"
        return [Finding("onnxruntime", False, detail, "pip install tuner", True)]
    names_of = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    title = installed[0] if installed else f"onnxruntime {onnxruntime.__version__}"
    return [Finding("onnxruntime", "CPU" in names_of, f"{title}; providers {', '.join(names_of)}", "", True)]


def cuda_findings() -> list[Finding]:
    """Whether the installed build has the CUDA provider."""
    try:
        import onnxruntime
    except Exception:
        return []  # `cpu_findings` says so
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        detail = (
            "this build holds the CUDA provider; it needs an NVIDIA GPU and the CUDA and cuDNN that it was built for"
        )
        return [Finding("onnxruntime-cuda", True, detail)]
    remedy = "runtime onnxruntime-cuda needs onnxruntime-gpu (Linux or Windows, x86-64)"
    return [Finding("onnxruntime-cuda", False, "no CUDA provider", remedy)]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
