"""A layer as a matrix product: which columns of its input every output position reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from search_spaces.layers import Layer

#: Operators whose product is described here; ConvTranspose adds overlapping products, so its weights are rounded.
PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Geometry:
    """What decides the columns, beside the input itself; layers that share both share their statistics.

    Attributes:
        tensor: The input's name.
        kernel: Kernel ``(height, width)``; empty for a matrix product.
        strides: Vertical and horizontal, as the next two.
        dilations: Of the kernel.
        pads: ``(top, left, bottom, right)``.
        groups: Convolution groups.
        left: The weight is the left factor of a matrix product, so that the input's columns are read.
    """

    tensor: str
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    groups: int = 1
    left: bool = False


def read_geometry(layer: Layer, node: onnx.NodeProto) -> Geometry:
    """Reads a node's attributes. A 1-D Conv is one of height 1.

    Raises:
        ValueError: The Conv has more than two dimensions.
    """
    if layer.op != "Conv":
        return Geometry(layer.input, left=layer.op == "MatMul" and layer.channel_axis == 0)
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kernel = layer.weight_shape[2:]
    rank = len(kernel)
    if rank > 2:
        raise ValueError(f"{layer.name}: a Conv over {rank} dimensions is not supported")
    strides = tuple(found.get("strides", (1,) * rank))
    dilations = tuple(found.get("dilations", (1,) * rank))
    pads = tuple(found.get("pads", (0,) * 2 * rank))
    auto = found.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(layer.input_shape[2:], kernel, strides, dilations, auto == "SAME_LOWER")
    if rank == 1:
        kernel, strides, dilations, pads = (1, *kernel), (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    return Geometry(layer.input, kernel, strides, dilations, pads, layer.groups)


def _same(
    size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], lower: bool
) -> tuple[int, ...]:
    """The pads of ``auto_pad`` (ONNX operator Conv): output = ceil(input / stride)."""
    begin, end = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        begin.append(large if lower else small)
        end.append(small if lower else large)
    return (*begin, *end)


def read_columns(
    values: NDArray[np.float32], geometry: Geometry, samples: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """The columns at random output positions.

    Args:
        values: One input, ``(1, C, H, W)`` or ``(1, C, W)`` of a Conv, else ``(..., K)``.
        geometry: How it is read.
        samples: At most so many positions.
        random: Chooses them.

    Returns:
        ``(groups, positions, K)``, K = input channels of a group x kernel taps, in the order of the weight's elements.
    """
    if not geometry.kernel:
        rows = values.swapaxes(-1, -2) if geometry.left else values
        rows = rows.reshape(-1, rows.shape[-1])
        if len(rows) > samples:
            rows = rows[random.choice(len(rows), samples, replace=False)]
        return rows[None]
    image = values[0] if values.ndim == 4 else values[0][:, None]
    top, left, bottom, right = geometry.pads
    channels, tall, wide = image.shape
    (kernel_y, kernel_x), (dilate_y, dilate_x) = geometry.kernel, geometry.dilations
    height = (tall + top + bottom - (kernel_y - 1) * dilate_y - 1) // geometry.strides[0] + 1
    width = (wide + left + right - (kernel_x - 1) * dilate_x - 1) // geometry.strides[1] + 1
    count = height * width
    chosen = random.choice(count, samples, replace=False) if count > samples else np.arange(count)
    taps_y, taps_x = np.divmod(np.arange(kernel_y * kernel_x)[:, None], kernel_x)
    y = (chosen // width) * geometry.strides[0] + taps_y * dilate_y - top  # (taps, positions)
    x = (chosen % width) * geometry.strides[1] + taps_x * dilate_x - left
    outside = (y < 0) | (y >= tall) | (x < 0) | (x >= wide)
    flat = np.where(outside, 0, y * wide + x)
    read = image.reshape(channels, -1).take(flat, axis=1)  # a padded copy of a large map costs more than its samples
    read[:, outside] = 0
    return np.asarray(read.reshape(geometry.groups, -1, len(chosen)).transpose(0, 2, 1))


def as_rows(weight: NDArray[np.generic], layer: Layer) -> NDArray[np.generic]:
    """A weight as ``(groups, output channels of a group, K)``, to be multiplied with the columns."""
    if layer.op == "Conv":
        return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
    return (weight if layer.channel_axis == 0 else weight.T)[None]


def from_rows(rows: NDArray[np.generic], layer: Layer) -> NDArray[np.generic]:
    """Undoes `as_rows`, for a weight or for its scales by block."""
    if layer.op == "Conv":
        return rows.reshape(layer.weight_shape[0], -1, *layer.weight_shape[2:])
    return np.ascontiguousarray(rows[0] if layer.channel_axis == 0 else rows[0].T)
