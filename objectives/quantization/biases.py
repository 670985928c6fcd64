"""Biases of layers that compute on integers: int32, in steps of input scale x weight scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.weights import QuantizedWeight
from search_spaces.layers import Layer

#: Half of int32: the other half is for the sum of products that the bias is added to.
LARGEST_CODE = 2**30
_LEAST_STEP = float(np.finfo(np.float32).tiny)


def as_vector(bias: NDArray[np.float32], layer: Layer) -> NDArray[np.float32] | None:
    """A bias with one value per output channel.

    Args:
        bias: Of any shape that broadcasts, as a Gemm may have it.
        layer: Whose it is.

    Returns:
        Shape ``(output channels,)``; None of a matrix, which no integer kernel adds.
    """
    channels = layer.output_channels
    if bias.size == 1:
        return np.full(channels, bias.item(), np.float32)
    return bias.reshape(-1) if bias.size == channels else None


def bias_scale(weight: QuantizedWeight, layer: Layer, input_scale: float) -> NDArray[np.float32]:
    """Step of each code of the bias: shape ``(output channels,)``, or ``()`` where the weight has one scale.

    The channels of a ConvTranspose's groups share the scales of its weight, which has them once.
    """
    scale = np.asarray(np.float32(input_scale) * weight.scale, dtype=np.float32)
    scale = np.maximum(scale, np.float32(_LEAST_STEP))
    return np.tile(scale, layer.output_channels // scale.size) if scale.ndim else scale


def with_room(weight: QuantizedWeight, layer: Layer, bias: NDArray[np.float32], input_scale: float) -> QuantizedWeight:
    """A weight whose scales leave room for its layer's bias.

    Where a layer's input hardly differs from 0, its bias is more than int32 holds in steps of input scale x weight
    scale. The weight's scales of those channels grow then, each for itself: a weight with one scale gets one per
    channel. Half a step of each of a sum's n products, times the largest code of the input, is less than n / 2**23 of
    such a bias: that is all that the coarser codes change. The bias cannot be left in float instead: ONNX Runtime 1.24
    then makes an int32 one by itself, and clips it.

    Args:
        weight: As quantized for itself, not in blocks.
        layer: Whose it is.
        bias: Shape ``(output channels,)``.
        input_scale: Step of the layer's input.

    Returns:
        `weight` itself where the bias fits.
    """
    channels = layer.weight_shape[layer.channel_axis]
    needed = np.abs(bias.astype(np.float64)).reshape(-1, channels).max(axis=0) / LARGEST_CODE / input_scale
    if (needed <= weight.scale).all():
        return weight
    scale = np.maximum(weight.scale, np.nextafter(needed.astype(np.float32), np.float32(np.inf)))
    shape = [-1 if axis == layer.channel_axis else 1 for axis in range(weight.codes.ndim)]
    ratio = (weight.scale.astype(np.float64) / scale).reshape(shape)
    codes = np.rint(weight.codes.astype(np.float64) * ratio).astype(weight.codes.dtype)
    return replace(weight, codes=codes, scale=scale, axis=layer.channel_axis)
