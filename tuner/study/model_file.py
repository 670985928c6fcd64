"""Model files as the commands take them: an ONNX file as it is, a PyTorch checkpoint by its export."""

from __future__ import annotations

from pathlib import Path

from objectives.runtimes.registry import default_runtime
from objectives.runtimes.runtime import Runtime

CHECKPOINT_SUFFIX = ".pt"


def onnx_file(
    path: Path, *, head: str | None = None, image_size: tuple[int, int] | None = None, runtime: Runtime | None = None
) -> Path:
    """Returns the ONNX file of a model; a checkpoint is exported into the user's cache, once.

    Args:
        path: ONNX file, or Ultralytics checkpoint (``.pt``).
        head: For a checkpoint, one that it can be exported with; None for a one-to-one head where it has one.
        image_size: Height and width, for a checkpoint; None for the size it was trained with.
        runtime: Decides the opset; the default one by default.

    Raises:
        InputError: The checkpoint is refused, damaged, or has no such head.
        RuntimeUnavailable: It is a checkpoint, and the `torch` extra is missing.
    """
    if path.suffix != CHECKPOINT_SUFFIX:
        return path
    from objectives.torch_models.export import ExportSettings, exported

    return exported(path, ExportSettings(head, (runtime or default_runtime()).dialect().export_opset, image_size))
