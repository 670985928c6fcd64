"""The weights of a torch module as its ONNX export holds them: each BatchNorm folded into what feeds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from objectives.torch_models.node_map import ModuleWeights

_PIXELS = 320  # of the image that shows which module feeds which: enough for the 300 queries of an RT-DETR


def folded_modules(module: Any) -> list[ModuleWeights]:
    """Reads the weights of every convolution and linear module, in module order.

    A BatchNorm that Ultralytics does not fold, an exporter does. An attention keeps the weights of its query, key and
    value in one matrix, and its export in three: they are told apart as ``NAME.q``, ``NAME.k`` and ``NAME.v``.

    Args:
        module: Of `Checkpoint.fused`.
    """
    import torch

    convolutions = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    norms = _norms_behind(module)
    found = []
    for name, part in module.named_modules():
        if isinstance(part, (*convolutions, torch.nn.Linear)):
            weight, bias = _array(part.weight), _array(part.bias)
            if name in norms and isinstance(part, torch.nn.Conv2d):
                weight, bias = _folded(weight, bias, norms[name])
            found.append(ModuleWeights(name, type(part).__name__, weight, bias))
        elif isinstance(part, torch.nn.MultiheadAttention) and part.in_proj_weight is not None:
            found += _projections(name, part)
    return found


def _projections(name: str, attention: Any) -> Iterator[ModuleWeights]:
    """Query, key and value, one below the other in one matrix."""
    weights = np.split(_array(attention.in_proj_weight), 3)
    biases = [None] * 3 if attention.in_proj_bias is None else np.split(_array(attention.in_proj_bias), 3)
    for letter, weight, bias in zip("qkv", weights, biases, strict=True):
        yield ModuleWeights(f"{name}.{letter}", "Linear", weight, bias)


def _norms_behind(module: Any) -> dict[str, Any]:
    """``{convolution: the BatchNorm that alone reads it}``, as one image shows."""
    import torch

    if not any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules()):
        return {}
    made: list[tuple[Any, str]] = []  # holds the tensors, so that no two have one identity
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: made.append((output, name))

    def look(norm: Any, given: Any) -> None:
        source = next((name for tensor, name in made if tensor is given[0]), None)
        if source is not None:
            found[source] = norm

    hooks = []
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Conv2d):
            hooks.append(part.register_forward_hook(keep(name)))
        elif isinstance(part, torch.nn.BatchNorm2d):
            hooks.append(part.register_forward_pre_hook(look))
    with torch.no_grad():
        module(torch.zeros(1, 3, _PIXELS, _PIXELS))
    for hook in hooks:
        hook.remove()
    return found


def _folded(weight: Any, bias: Any, norm: Any) -> tuple[Any, Any]:
    gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + np.float32(norm.eps))
    moved = (np.float32(0) if bias is None else bias) - _array(norm.running_mean)
    return weight * gain[:, None, None, None], moved * gain + _array(norm.bias)


def _array(tensor: Any) -> Any:
    return None if tensor is None else np.asarray(tensor.detach().cpu().numpy(), np.float32)
