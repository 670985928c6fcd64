"""Model files as the commands take them: an ONNX file as it is, a PyTorch checkpoint by its export."""

from __future__ import annotations

from pathlib import Path

from objectives.runtimes.backends import tensorrt_version
from objectives.runtimes.tensorrt.rules import dialect

CHECKPOINT_SUFFIX = ".pt"


def onnx_file(
    path: Path, *, head: str | None = None, image_size: tuple[int, int] | None = None, runtime: str = "onnxruntime-cpu"
) -> Path:
    """Returns the ONNX file of a model; a checkpoint is exported into the user's cache, once.

    Args:
        path: ONNX file, or Ultralytics checkpoint (``.pt``).
        head: ``end_to_end`` or ``scores``, for a checkpoint; None for end to end where it has that head.
        image_size: Height and width, for a checkpoint; None for the size it was trained with.
        runtime: Decides the opset.

    Raises:
        InputError: The checkpoint is refused, damaged, or has no such head.
        RuntimeUnavailable: It is a checkpoint, and the `torch` extra is missing.
    """
    if path.suffix != CHECKPOINT_SUFFIX:
        return path
    from objectives.torch_models.export import ExportSettings, exported

    return exported(path, ExportSettings(head, opset_of(runtime), image_size))


def opset_of(runtime: str) -> int:
    """The opset that a runtime reads best."""
    from objectives.torch_models.export import DEFAULT_OPSET, OPSETS

    return OPSETS.get(dialect(tensorrt_version()) if runtime == "tensorrt" else runtime, DEFAULT_OPSET)
