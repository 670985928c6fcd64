"""ONNX operators in PyTorch, as far as detectors use them up to their dense outputs.

Each takes its attributes and inputs and returns its outputs. Source of their meaning: the ONNX operator schemas; that
these compute the same is checked on every model against ONNX Runtime (`Executor.check`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = dict[str, Any]
Inputs = Sequence[Any]  # torch.Tensor, or None for an input that is left out
Operator = Callable[[Attributes, Inputs], Tensor | tuple[Tensor, ...]]


class NotSupported(Exception):
    """An operator, or a setting of one, that is not here; says which."""


def _ints(value: Tensor) -> list[int]:
    return [int(entry) for entry in value.reshape(-1).tolist()]


def _padded(x: Tensor, attributes: Attributes, fill: float) -> tuple[Tensor, list[int]]:
    """The input with uneven padding put on, and the even padding that is left to the operator."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotSupported(f"auto_pad {attributes['auto_pad']}")
    spatial = x.ndim - 2
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    begin, end = pads[:spatial], pads[spatial:]
    if begin == end:
        return x, begin
    return functional.pad(x, _torch_pads(begin, end), value=fill), [0] * spatial


def _torch_pads(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """PyTorch counts axes from the last one."""
    return [side for pair in zip(reversed(begin), reversed(end), strict=True) for side in pair]


def _conv(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    x, pads = _padded(x, attributes, 0.0)
    spatial = x.ndim - 2
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[spatial]
    stride, dilation = attributes.get("strides", [1] * spatial), attributes.get("dilations", [1] * spatial)
    found: Tensor = function(x, weight, bias, stride, pads, dilation, attributes.get("group", 1))
    return found


def _conv_transpose(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    spatial = x.ndim - 2
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    chosen = "output_shape" in attributes or attributes.get("auto_pad", "NOTSET") != "NOTSET"
    if pads[:spatial] != pads[spatial:] or chosen or spatial != 2:
        raise NotSupported("uneven pads, auto_pad, output_shape or other than two dimensions")
    strides, more = attributes.get("strides", [1, 1]), attributes.get("output_padding", [0, 0])
    dilations, group = attributes.get("dilations", [1, 1]), attributes.get("group", 1)
    return functional.conv_transpose2d(x, weight, bias, strides, pads[:spatial], more, group, dilations)


def _gemm(attributes: Attributes, inputs: Inputs) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    found: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        found = found + attributes.get("beta", 1.0) * inputs[2]
    return found


def _max_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, pads = _padded(inputs[0], attributes, -math.inf)
    kernel = attributes["kernel_shape"]
    if len(kernel) != 2:
        raise NotSupported("other than two dimensions")
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return functional.max_pool2d(x, kernel, strides, pads, dilations, bool(attributes.get("ceil_mode", 0)))


def _average_pool(attributes: Attributes, inputs: Inputs) -> Tensor:
    counts = bool(attributes.get("count_include_pad", 0))
    pads, kernel = list(attributes.get("pads", [0] * 4)), attributes["kernel_shape"]
    if len(kernel) != 2 or pads[:2] != pads[2:] or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotSupported("uneven pads, auto_pad or other than two dimensions")
    if any(side != 1 for side in attributes.get("dilations", ())):
        raise NotSupported("dilations")
    strides, ceil = attributes.get("strides", [1, 1]), bool(attributes.get("ceil_mode", 0))
    return functional.avg_pool2d(inputs[0], kernel, strides, pads[:2], ceil, counts)


def _pad(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    if attributes.get("mode", "constant") != "constant" or (len(inputs) > 3 and inputs[3] is not None):
        raise NotSupported("another mode than constant, or chosen axes")
    pads = _ints(inputs[1]) if len(inputs) > 1 else list(attributes["pads"])
    fill = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0.0)
    return functional.pad(x, _torch_pads(pads[: x.ndim], pads[x.ndim :]), value=fill)


def _resize(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    if "axes" in attributes or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotSupported("chosen axes, or a kept aspect ratio")
    if attributes.get("antialias", 0) or attributes.get("exclude_outside", 0):
        raise NotSupported("antialias or exclude_outside")
    given = [entry if entry is not None and entry.numel() else None for entry in [*inputs, None, None, None][:4]]
    if given[3] is not None:
        size = _ints(given[3])[2:]
    elif given[2] is not None:
        size = [math.floor(side * factor) for side, factor in zip(x.shape, given[2].tolist(), strict=True)][2:]
    else:
        raise NotSupported("neither sizes nor scales")
    mode, where = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    whole = all(new % old == 0 for new, old in zip(size, x.shape[2:], strict=True))
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    middle = where == "half_pixel" and rounding.startswith("round_prefer")
    if mode == "nearest" and whole and (middle or (where == "asymmetric" and rounding == "floor")):
        return functional.interpolate(x, size=size, mode="nearest")
    if mode == "linear" and x.ndim == 4 and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=where == "align_corners")
    raise NotSupported(f"mode {mode} with {where} and {rounding}")


def _reshape(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, batch = inputs[0], attributes["batch"]
    shape = [x.shape[place] if side == 0 else side for place, side in enumerate(_ints(inputs[1]))]
    if batch > 1 and shape[0] > 0 and _ints(inputs[1])[0] != 0:
        shape[0] *= batch  # the graph was written for one image
    return x.reshape(shape)


def _slice(attributes: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    starts, ends = _ints(inputs[1]), _ints(inputs[2])
    axes = _ints(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = _ints(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise NotSupported("a step backwards")
        index[axis] = slice(start, end, step)
    found: Tensor = x[tuple(index)]
    return found


def _split(attributes: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = inputs[0], attributes.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        return x.split(_ints(inputs[1]), axis)  # type: ignore[no-any-return]
    if "split" in attributes:
        return x.split(list(attributes["split"]), axis)  # type: ignore[no-any-return]
    return x.split(-(-x.shape[axis] // attributes["outputs"]), axis)  # type: ignore[no-any-return]


def _concat(attributes: Attributes, inputs: Inputs) -> Tensor:
    axis = attributes["axis"]
    largest = max(value.shape[0] for value in inputs)
    if largest > 1 and axis % inputs[0].ndim != 0:  # constants were written for one image
        inputs = [value.expand(largest, *value.shape[1:]) if value.shape[0] == 1 else value for value in inputs]
    return torch.cat(list(inputs), axis)


def _axes(attributes: Attributes, inputs: Inputs) -> list[int]:
    if len(inputs) > 1 and inputs[1] is not None:
        return _ints(inputs[1])
    return list(attributes.get("axes", []))


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axes = inputs[0], _axes(attributes, inputs)
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(attributes: Attributes, inputs: Inputs) -> Tensor:
        axes = _axes(attributes, inputs) or list(range(inputs[0].ndim))
        return function(inputs[0], axes, keepdim=bool(attributes.get("keepdims", 1)))

    return reduce


def _clip(attributes: Attributes, inputs: Inputs) -> Tensor:
    low, high = (inputs[place] if len(inputs) > place else None for place in (1, 2))
    return torch.clamp(inputs[0], low, high) if low is not None or high is not None else inputs[0]


def _gather(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", 0) % inputs[0].ndim
    index = inputs[1].long().to(x.device)
    index = torch.where(index < 0, index + x.shape[axis], index)
    found: Tensor = x.index_select(axis, index.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _normalise(attributes: Attributes, inputs: Inputs) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", -1) % inputs[0].ndim
    bias = inputs[2] if len(inputs) > 2 else None
    return functional.layer_norm(x, x.shape[axis:], inputs[1], bias, attributes.get("epsilon", 1e-5))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda attributes, inputs: function(inputs[0])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda attributes, inputs: function(inputs[0], inputs[1])


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _binary(torch.matmul),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda attributes, inputs: inputs[0].mean(list(range(2, inputs[0].ndim)), keepdim=True),
    "BatchNormalization": lambda attributes, inputs: functional.batch_norm(
        inputs[0], inputs[3], inputs[4], inputs[1], inputs[2], eps=attributes.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _normalise,
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(torch.div),
    "Pow": _binary(lambda x, y: torch.pow(x, y.to(x.dtype))),
    "Sigmoid": _unary(torch.sigmoid),
    "Silu": _unary(functional.silu),  # of no schema: two nodes fused (`executor.fused`)
    "Relu": _unary(torch.relu),
    "Tanh": _unary(torch.tanh),
    "Exp": _unary(torch.exp),
    "Sqrt": _unary(torch.sqrt),
    "Neg": _unary(torch.neg),
    "Erf": _unary(torch.erf),
    "Softplus": _unary(functional.softplus),
    "Identity": _unary(lambda x: x),
    "HardSwish": _unary(functional.hardswish),
    "HardSigmoid": lambda attributes, inputs: torch.clamp(
        attributes.get("alpha", 0.2) * inputs[0] + attributes.get("beta", 0.5), 0, 1
    ),
    "LeakyRelu": lambda attributes, inputs: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "Gelu": lambda attributes, inputs: functional.gelu(inputs[0], approximate=attributes.get("approximate", "none")),
    "Clip": _clip,
    "Softmax": lambda attributes, inputs: torch.softmax(inputs[0], attributes.get("axis", -1)),
    "Pad": _pad,
    "Resize": _resize,
    "Reshape": _reshape,
    "Flatten": lambda attributes, inputs: inputs[0].flatten(attributes.get("axis", 1)),
    "Transpose": lambda attributes, inputs: inputs[0].permute(
        attributes.get("perm", list(reversed(range(inputs[0].ndim))))
    ),
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda attributes, inputs: inputs[0].squeeze(_axes(attributes, inputs)),
    "Expand": lambda attributes, inputs: inputs[0].expand(torch.broadcast_shapes(inputs[0].shape, _ints(inputs[1]))),
    "Gather": _gather,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
}
