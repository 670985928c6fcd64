"""Operators of torchvision where its own are not there: a wheel that was built for another torch has none.

An export traces them once and writes ONNX operators in their place, so shapes matter and speed does not.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

#: What torchvision registers derivatives and shapes for when it is imported.
_OTHERS = (
    "qnms", "deform_conv2d", "ps_roi_align", "ps_roi_pool", "roi_pool", "_deform_conv2d_backward",
    "_ps_roi_align_backward", "_ps_roi_pool_backward", "_roi_align_backward", "_roi_pool_backward",
)  # fmt: skip
_ROI = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio"


def ensure_operators() -> None:
    """Defines what is missing; to be called before torchvision is imported."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        _define()


def _define() -> None:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(f"roi_align({_ROI}, bool aligned) -> Tensor")
    for name in _OTHERS:
        library.define(f"{name}(Tensor input) -> Tensor")
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", _roi_align, "CPU")
    torch.jit.script_if_tracing = lambda function: function  # a script would want the compiled operators
    import_module("torchvision.ops")
    for name, module in list(sys.modules.items()):
        if name.startswith("torchvision.") and hasattr(module, "_has_ops"):
            module._has_ops = _present  # type: ignore[attr-defined]
    _define.library = library  # type: ignore[attr-defined]  # the operators live as long as it does


def _present() -> bool:
    return True


def _nms(boxes: Any, scores: Any, threshold: float) -> Any:
    order, kept = scores.argsort(descending=True), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        corners = torch.minimum(boxes[first, 2:], boxes[rest, 2:]) - torch.maximum(boxes[first, :2], boxes[rest, :2])
        shared = corners.clamp(min=0).prod(1)
        order = rest[shared / (areas[first] + areas[rest] - shared) <= threshold]
    return torch.stack(kept) if kept else order


def _roi_align(features: Any, rois: Any, _: float, height: int, width: int, *__: Any) -> Any:
    return features.mean() * torch.ones(len(rois), features.shape[1], height, width)
