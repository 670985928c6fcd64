"""Weight quantizers: a float weight and a format give codes and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from objectives.quantization.columns import PRODUCTS
from search_spaces.errors import InputError, nearest
from search_spaces.formats import Format, Granularity, NumberSpec
from search_spaces.layers import Layer

METHODS = ("auto", "rtn", "bias", "gptq")
_FP16 = np.finfo(np.float16)


@dataclass(frozen=True)
class WeightSettings:
    """How weights are quantized, for the whole study.

    Attributes:
        method: ``rtn``: round to nearest; ``bias``: and correct the bias by the mean error; ``gptq``: codes and scales
            of the least output error on calibration images, with a corrected bias; ``auto``: gptq for 4 bits, rtn for
            8, where it loses nothing (`NumberSpec.recovered`).
        granularity: Elements that share a scale.
        block_size: Input channels of one block.
        device: Who solves gptq: ``cpu``, by NumPy, or a PyTorch device such as ``cuda``; the same within rounding.
        sequential: Stages of layers in model order; each is quantized for the inputs that the weights of the stages
            before it leave. 1: all for the inputs in full precision.
    """

    method: str = "rtn"
    granularity: Granularity = Granularity.AUTO
    block_size: int = 32
    device: str = "cpu"
    sequential: int = 1

    def recovers(self, layer: Layer, fmt: Format) -> bool:
        """Whether the weight's codes come from `recovery` and not from plain rounding.

        Float codes have no even grid, and a ConvTranspose adds overlapping products: both are rounded.
        """
        wanted = fmt.weight.is_integer and (
            self.method in ("bias", "gptq") or (self.method == "auto" and fmt.weight.recovered)
        )
        return wanted and layer.op in PRODUCTS and (layer.op == "Conv" or len(layer.weight_shape) == 2)

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
        codes: The weight's shape; of integers one per element, whatever a file packs, e.g. int8 holding int4 codes.
        scale: float32, or where blocks share one ``number.block_scale``; shape ``()``, ``(channels,)``, or the weight's
            shape with `axis` divided by `block_size`.
        axis: Channel axis of `scale`, or the blocked axis; None per tensor.
        block_size: 0 unless blocked.
        number: Number format of `codes`.
    """

    codes: NDArray[np.generic]
    scale: NDArray[np.floating[Any]]
    axis: int | None
    block_size: int
    number: NumberSpec

    @property
    def stored_bytes(self) -> int:
        """Bytes of codes (packed as in a file) and scales; symmetric codes need no zero point."""
        return self.code_bytes + self.scale.nbytes

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes alone."""
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


def resolve_granularity(layer: Layer, fmt: Format, settings: WeightSettings) -> Granularity:
    """The granularity that a layer really gets.

    Blocks run along input channels. A layer stays per channel where its input channels are fewer than one block or no
    multiple of it (every depthwise Conv), where groups hide the axis (ConvTranspose), where the weight is a float, and
    where activations are integers too: integer kernels sum over all input channels before they scale.
    """
    if settings.granularity is Granularity.PER_TENSOR or settings.granularity is Granularity.PER_CHANNEL:
        return settings.granularity
    axis = block_axis(layer)
    fits = axis is not None and layer.weight_shape[axis] % settings.block_size == 0
    wanted = Granularity.BLOCK in (settings.granularity, fmt.weight.granularity)
    scales_late = fmt.activation.is_integer
    blocked = wanted and fits and fmt.weight.is_integer and not scales_late
    return Granularity.BLOCK if blocked else Granularity.PER_CHANNEL


def weight_key(layer: Layer, fmt: Format, settings: WeightSettings) -> str:
    """Names what decides a layer's codes, e.g. ``/model.0/conv/Conv int4 block``."""
    return f"{layer.name} {fmt.weight.name} {resolve_granularity(layer, fmt, settings).value}"


def block_axis(layer: Layer) -> int | None:
    """Axis of the weight that holds input channels, or None where blocks make no sense."""
    if layer.op == "ConvTranspose":
        return None
    return 1 - layer.channel_axis


def quantize_weight(
    weight: NDArray[np.float32], layer: Layer, fmt: Format, settings: WeightSettings
) -> QuantizedWeight:
    """Quantizes one weight symmetrically, scale = max |w| / largest code.

    Args:
        weight: The layer's weight, float32.
        layer: Tells axes and groups.
        fmt: Must quantize the weight.
        settings: Method, granularity and block size.
    """
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
        axis, block = block_axis(layer), settings.block_size
        assert axis is not None
        split = [*weight.shape[:axis], weight.shape[axis] // block, block, *weight.shape[axis + 1 :]]
        peak = np.abs(weight).reshape(split).max(axis=axis + 1)
    number = fmt.weight
    # A dead channel keeps scale 1: its codes are 0 whatever the scale.
    scale = np.asarray(np.where(peak > 0, peak / number.largest, 1.0), dtype=np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    stored = _halved(scale) if block and number.block_scale == "float16" else scale
    unit = QuantizedWeight(np.ones_like(weight, dtype=np.int8), stored, axis, block, number).dequantized()
    scaled = weight / unit
    codes = np.clip(np.rint(scaled) if number.is_integer else scaled, number.least, number.largest)
    return QuantizedWeight(codes.astype(_code_type(number)), stored, axis, block, number)


def _code_type(number: NumberSpec) -> np.dtype[np.generic]:
    """What holds one code in memory: whole bytes."""
    if number.is_integer:
        return np.dtype(f"int{max(8, number.bits)}")
    return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(number.onnx))


def _halved(scale: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Block scales as float16, which spares half a bit per weight at blocks of 32.

    They stay float32 where float16 cannot hold them: too large, or the whole weight is so small that its scales would
    be subnormal. Single ones below the least normal float16 are raised to it.
    """
    if scale.max() > _FP16.max or scale.max() < 64 * _FP16.tiny:
        return scale
    return np.asarray(np.maximum(scale, _FP16.tiny), dtype=np.float16)
