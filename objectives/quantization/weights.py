"""Weight quantizers: a float weight and a format give codes and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.columns import PRODUCTS
from objectives.quantization.grid import code_type, round_codes
from objectives.quantization.scales import round_scales
from search_spaces.errors import InputError, nearest
from search_spaces.formats import Format, Granularity, NumberSpec
from search_spaces.layers import Layer

METHODS = ("auto", "rtn", "bias", "gptq", "corrected")
_FP16 = np.finfo(np.float16)


@dataclass(frozen=True)
class WeightSettings:
    """How weights are quantized, for the whole study.

    Attributes:
        method: ``rtn``: round to nearest; ``bias``: and correct the bias by the mean error; ``gptq``: codes and scales
            of the least output error on calibration images, with a corrected bias; ``auto``: gptq for 4 bits
            (`NumberSpec.recovered`), rtn for 8; ``corrected``: gptq for 4 bits, bias for 8.
        granularity: Elements that share a scale.
        block_size: Input channels of one block, of formats that leave it open.
        device: Who solves gptq: ``cpu``, by NumPy, or a PyTorch device such as ``cuda``; the same within rounding.
        sequential: Stages of layers in model order; each is quantized for the inputs that the weights of the stages
            before it leave. 1: all for the inputs in full precision.
    """

    method: str = "rtn"
    granularity: Granularity = Granularity.AUTO
    block_size: int = 32
    device: str = "cpu"
    sequential: int = 1

    def method_for(self, fmt: Format) -> str:
        """What a format's weights are quantized by: the method, or what it takes for them."""
        of_eight_bits = {"auto": "rtn", "corrected": "bias"}.get(self.method)
        if of_eight_bits is None:
            return self.method
        return "gptq" if fmt.weight.recovered else of_eight_bits

    def recovers(self, layer: Layer, fmt: Format) -> bool:
        """Whether the weight's codes come from `recovery` and not from plain rounding.

        Eight bits of a float are enough as they are, a ConvTranspose adds overlapping products, and the columns of a
        Conv over three dimensions are not described: they are rounded.
        """
        number = fmt.weight
        gains = number.is_integer or number.recovered
        wanted = gains and self.method_for(fmt) != "rtn"
        return wanted and layer.op in PRODUCTS and len(layer.weight_shape) <= (4 if layer.op == "Conv" else 2)

    def blocks(self, layer: Layer, fmt: Format) -> bool:
        """Whether the scales of a layer's weight are those of blocks."""
        return resolve_granularity(layer, fmt, self) is Granularity.BLOCK

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"weights.method: {self.method!r} is not one of {', '.join(METHODS)}{nearest(self.method, METHODS)}"
            )
        if self.block_size < 1:
            raise InputError(f"weights.block_size: {self.block_size} must be at least 1, e.g. 32")
        if self.sequential < 1:
            raise InputError(f"weights.sequential: {self.sequential} must be at least 1, which is off")


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as an artifact stores it.

    Attributes:
        codes: The weight's shape; one element each, whatever a file packs, e.g. int8 holding int4 codes.
        scale: float32, or float16 where blocks share one and that is their format; shape ``()``, ``(channels,)``, or
            the weight's shape with `axis` divided by `block_size`. Where block scales have a scale themselves, their
            product, which float32 holds exactly.
        axis: Channel axis of `scale`, or the blocked axis; None per tensor.
        block_size: 0 unless blocked.
        number: Number format of `codes`.
    """

    codes: NDArray[np.generic]
    scale: NDArray[np.floating[Any]]
    axis: int | None
    block_size: int
    number: NumberSpec

    def scale_bytes(self, each: int) -> int:
        """Bytes of the scales, where a float scale takes `each`."""
        if self.tensor_scale and self.scale_number is not None:
            return self.scale.size * self.scale_number.bits // 8 + 4
        return self.scale.size * each

    @property
    def scale_number(self) -> NumberSpec | None:
        """Format that scales are stored in; None: float32."""
        kind = self.number.block_scale if self.block_size else None
        return kind if kind is None or kind.quantized or self.scale.dtype == np.float16 else None

    @property
    def tensor_scale(self) -> float:
        """What stored scales of blocks are multiples of; 0 where they stand for themselves."""
        number = self.scale_number
        return _unit(float(self.scale.max()), number) if number is not None and number.quantized else 0.0

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes, packed as in a file."""
        return -(-self.codes.size * self.number.bits // 8)

    def flattened(self) -> QuantizedWeight:
        """The same with all axes behind the blocked one as one, e.g. ``[K, C, R, S]`` as ``[K, C, R x S]``."""
        assert self.axis is not None
        codes = self.codes.reshape(*self.codes.shape[: self.axis + 1], -1)
        scale = self.scale.reshape(*self.scale.shape[: self.axis + 1], -1)
        return QuantizedWeight(codes, scale, self.axis, self.block_size, self.number)

    def dequantized(self) -> NDArray[np.float32]:
        """The weight that the runtime computes with, float32, in the weight's shape."""
        scale = self.scale.astype(np.float32)
        if self.block_size:
            assert self.axis is not None
            size = self.codes.shape[self.axis]
            scale = np.repeat(scale, self.block_size, axis=self.axis).take(range(size), axis=self.axis)
        elif self.axis is not None:
            scale = scale.reshape([-1 if axis == self.axis else 1 for axis in range(self.codes.ndim)])
        return np.asarray(self.codes.astype(np.float32) * scale, dtype=np.float32)


@dataclass(frozen=True)
class LayerNumbers:
    """What an artifact stores of one quantized layer.

    Attributes:
        weight: Codes and scales.
        bias: float32 ``(output channels,)``, corrected; None where it has none.
        shift: What the correction is; None where there is none.
        input_scale: Step of its input, where the bias is stored as int32; None elsewhere.
    """

    weight: QuantizedWeight
    bias: NDArray[np.float32] | None
    shift: NDArray[np.float32] | None
    input_scale: float | None = None


def resolve_granularity(layer: Layer, fmt: Format, settings: WeightSettings) -> Granularity:
    """The granularity that a layer really gets.

    Blocks run along input channels; a format that fixes their size has no other granularity. Else a layer stays per
    channel where its input channels are fewer than one block or no multiple of it (every depthwise Conv), where groups
    hide the axis (ConvTranspose), where the weight is a float, and where activations are integers too: integer kernels
    sum over all input channels before they scale.
    """
    if fmt.weight.block_size:
        return Granularity.BLOCK
    if settings.granularity is Granularity.PER_TENSOR or settings.granularity is Granularity.PER_CHANNEL:
        return settings.granularity
    axis = layer.block_axis
    fits = axis is not None and layer.weight_shape[axis] % settings.block_size == 0
    wanted = Granularity.BLOCK in (settings.granularity, fmt.weight.granularity)
    scales_late = fmt.activation.is_integer
    blocked = wanted and fits and fmt.weight.is_integer and not scales_late
    return Granularity.BLOCK if blocked else Granularity.PER_CHANNEL


def weight_key(layer: Layer, fmt: Format, settings: WeightSettings) -> str:
    """Names what decides a layer's codes, e.g. ``/model.0/conv/Conv int4 block``."""
    return f"{layer.name} {fmt.weight.name} {resolve_granularity(layer, fmt, settings).value}"


def quantize_weight(
    weight: NDArray[np.float32], layer: Layer, fmt: Format, settings: WeightSettings
) -> QuantizedWeight:
    """Quantizes one weight symmetrically, scale = max |w| / largest code.

    Args:
        weight: The layer's weight, float32.
        layer: Tells axes and groups.
        fmt: Must quantize the weight.
        settings: Method, granularity and block size.

    Raises:
        InputError: The format has blocks of its own, and the layer's input channels do not fill them.
    """
    if why := layer.lacks(fmt):
        raise InputError(f"layer {layer.name!r}: {why}")
    granularity = resolve_granularity(layer, fmt, settings)
    axis: int | None
    if granularity is Granularity.PER_TENSOR:
        axis, block = None, 0
        peak = np.abs(weight).max()
    elif granularity is Granularity.PER_CHANNEL:
        axis, block = layer.channel_axis, 0
        others = tuple(i for i in range(weight.ndim) if i != axis)
        peak = np.abs(weight).max(axis=others)
    else:
        axis, block = layer.block_axis, fmt.weight.block_size or settings.block_size
        assert axis is not None
        split = [*weight.shape[:axis], weight.shape[axis] // block, block, *weight.shape[axis + 1 :]]
        peak = np.abs(weight).reshape(split).max(axis=axis + 1)
    number = fmt.weight
    # A dead channel's codes are 0 whatever the scale; one that is shared must not grow for it.
    shared = number.block_scale is not None and number.block_scale.quantized and peak.max() > 0
    dead = peak.max() / number.largest if shared else 1.0
    scale = np.asarray(np.where(peak > 0, peak / number.largest, dead), dtype=np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    stored: NDArray[np.floating[Any]] = scale
    if block and number.block_scale is not None:
        kind = number.block_scale
        stored = round_scales(np, scale, kind, _unit(float(scale.max()), kind)) if kind.quantized else _halved(scale)
    unit = QuantizedWeight(np.ones_like(weight, dtype=np.int8), stored, axis, block, number).dequantized()
    codes = round_codes(np, weight / unit, number)
    return QuantizedWeight(codes.astype(code_type(number)), stored, axis, block, number)


def _unit(peak: float, number: NumberSpec) -> float:
    """The least power of two of which `peak` is no larger multiple than `number` can hold.

    A power of two spares rounding: the product of the scales is the same in float32 and float16. For the same reason it
    is no subnormal float16, unless the weight is so small that float16 has no room for it.
    """
    unit = float(2.0 ** np.ceil(np.log2(peak / number.largest)))
    return max(unit, float(_FP16.tiny)) if peak >= _FP16.tiny else unit


def _halved(scale: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Block scales as float16, which spares half a bit per weight at blocks of 32.

    They stay float32 where float16 cannot hold them: too large, or the whole weight is so small that its scales would
    be subnormal. Single ones below the least normal float16 are raised to it.
    """
    if scale.max() > _FP16.max or scale.max() < 64 * _FP16.tiny:
        return scale
    return np.asarray(np.maximum(scale, _FP16.tiny), dtype=np.float16)
