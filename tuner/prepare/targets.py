"""What a study's runtime means for its preparation, each question answered at one place."""

from __future__ import annotations

from objectives.runtimes.backends import tensorrt_version
from objectives.runtimes.tensorrt.rules import dialect

# Of TensorRT's dialects the one in float32, which ONNX Runtime computes exactly and fast.
_FLOAT_VERSION = "8.6"


def materializer_dialect(runtime: str, version: str | None = None) -> str:
    """The dialect of ONNX that a runtime reads, a key of the materializer's `DIALECTS`.

    Args:
        runtime: Its name.
        version: TensorRT's, where the runtime is that; the installed one by default.

    Raises:
        RuntimeUnavailable: No version is given, and TensorRT is not installed.
    """
    return dialect(version or tensorrt_version()) if runtime == "tensorrt" else runtime


def float_dialect(runtime: str, float8: bool) -> str:
    """The dialect in which ONNX Runtime computes a runtime's schemes in float32.

    Args:
        runtime: Its name.
        float8: Whether the schemes may hold fp8 activations, which only the newer dialect of TensorRT can express.
    """
    return materializer_dialect(runtime, None if float8 else _FLOAT_VERSION)


def has_engines(runtime: str) -> bool:
    """Whether a runtime builds engines, which are probed before the search and read back after each build."""
    return runtime == "tensorrt"


def compares_in_cuda(runtime: str) -> bool:
    """Whether label-free comparisons run in ONNX Runtime's CUDA provider; else on its CPU."""
    return runtime == "onnxruntime-cuda"
