"""Quantized numbers that can be learnt: what the artifact computes forward, straight-through gradients backward.

Source of the gradients: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013; of
learnt steps Esser et al., "Learned Step Size Quantization", 2020.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from objectives.quantization.grid import code_type, round_codes
from objectives.quantization.qdq import QuantParams
from objectives.quantization.weights import QuantizedWeight
from search_spaces.formats import NumberSpec
from search_spaces.layers import Layer

# Where in its code's step a weight begins: half as far from the middle as the exact weight is. GPTQ's codes are often
# not the nearest ones; begun at their edges, the first steps' noise would turn them back.
_INWARDS = 0.5


class _Rounded(torch.autograd.Function):  # type: ignore[misc]
    """Rounds by a function that no gradient passes, exactly, and lets the gradient pass as if it were not there."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `value`."""
    return cast(Tensor, _Rounded.apply(value, rounded.detach()))


class _FakeQuantized(torch.autograd.Function):  # type: ignore[misc]
    """A pair of QuantizeLinear and DequantizeLinear on integers; keeps nothing but its input for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x, step, zero)
        ctx.bounds = low, high
        codes = (x.float() / step).round_().add_(zero).clamp_(low, high)
        return codes.sub_(zero).mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, step, zero = ctx.saved_tensors
        ratio = x.float() / step
        codes = ratio.round().add_(zero)
        clamped = codes.clamp(*ctx.bounds)
        inside = codes == clamped
        gradient = gradients[0].float()
        passed = gradient * inside
        of_step = (gradient * clamped.sub_(zero)).sum() - (passed * ratio).sum()
        of_zero = -step * (gradient.sum() - passed.sum())
        return passed.to(x.dtype), of_step, of_zero, None, None


class LearnedWeight(nn.Module):  # type: ignore[misc]
    """A layer's weight, whose codes (of integers), scales and bias are learnt.

    Args:
        layer: The layer.
        exact: Its unquantized weight.
        weight: Where learning begins: it starts at these very codes and scales.
        bias: Of the quantized layer, float32 ``(output channels,)``; None where it has no room for one.
        device: A PyTorch device.
    """

    def __init__(
        self,
        layer: Layer,
        exact: NDArray[np.float32],
        weight: QuantizedWeight,
        bias: NDArray[np.float32] | None,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._start = weight
        codes = torch.tensor(weight.codes.astype(np.float32), device=device)
        if weight.number.is_integer:
            step = replace(weight, codes=np.ones_like(weight.codes)).dequantized()
            ideal = torch.tensor(exact / step, device=device)
            codes = codes + _INWARDS * torch.clamp(ideal - codes, -0.5, 0.5)
        self.position = nn.Parameter(codes, requires_grad=weight.number.is_integer)
        start = torch.tensor(np.asarray(weight.scale, np.float32), device=device)
        self._scale = start
        learnt = not weight.tensor_scale  # scales that are stored in a format of their own stay
        self.growth = nn.Parameter(torch.zeros_like(start), requires_grad=learnt)
        self.shift = nn.Parameter(torch.zeros(layer.output_channels, device=device), requires_grad=bias is not None)
        self._bias = torch.tensor(bias, device=device) if bias is not None else None
        self._unit = float(np.abs(bias).mean()) + 1e-6 if bias is not None else 1.0

    @property
    def bits(self) -> int:
        """Of a code."""
        return self._start.number.bits

    @property
    def scale(self) -> Tensor:
        """The scales as they are stored, float32."""
        scale = self._scale * torch.exp(self.growth)
        if self._start.scale.dtype == np.float16:
            return straight_through(scale, scale.half().float())
        return scale

    @property
    def codes(self) -> Tensor:
        """The codes, as floats; a gradient passes those that are on the grid."""
        number = self._start.number
        if not number.is_integer:
            return self.position
        inside = torch.clamp(self.position, number.least, number.largest)
        return straight_through(inside, inside.round())

    def spread(self, scale: Tensor) -> Tensor:
        """Scales as the step of every element."""
        weight = self._start
        if weight.block_size and weight.axis is not None:
            wide = scale.repeat_interleave(weight.block_size, weight.axis)
            return wide.narrow(weight.axis, 0, weight.codes.shape[weight.axis])
        if weight.axis is not None:
            return scale.reshape([-1 if axis == weight.axis else 1 for axis in range(weight.codes.ndim)])
        return scale

    def forward(self) -> Tensor:
        """The weight that the layer computes with."""
        return self.codes * self.spread(self.scale)

    @property
    def biased(self) -> bool:
        """Whether there is a bias to learn."""
        return self._bias is not None

    def bias(self) -> Tensor | None:
        """The bias that the layer adds, before integer kernels round it to int32; None where there is none."""
        if self._bias is None:
            return None
        return self._bias + self._unit * self.shift

    def quantized(self) -> QuantizedWeight:
        """What the artifact stores."""
        start = self._start
        with torch.no_grad():
            codes = self.codes.cpu().numpy()
            scale = self.scale.cpu().numpy()
        kept = start.scale if start.tensor_scale else scale.astype(start.scale.dtype)
        held = codes.astype(code_type(start.number)) if start.number.is_integer else start.codes
        return replace(start, codes=held.astype(start.codes.dtype), scale=kept.reshape(np.shape(start.scale)))

    def moved(self) -> NDArray[np.float32] | None:
        """What was added to the bias; None where there is none."""
        if self._bias is None:
            return None
        return np.asarray((self._unit * self.shift).detach().cpu().numpy(), np.float32)


class LearnedRange(nn.Module):  # type: ignore[misc]
    """The range of an activation, whose two ends are learnt; the codes of 0 stay exact.

    Args:
        params: Where it begins.
        number: Format of the codes.
        unsigned: Whether they have no sign.
        device: A PyTorch device.
    """

    def __init__(self, params: QuantParams, number: NumberSpec, unsigned: bool, device: torch.device) -> None:
        super().__init__()
        self.params, self._number, self._unsigned = params, number, unsigned
        self.growth = nn.Parameter(torch.zeros((), device=device))
        self.tilt = nn.Parameter(torch.zeros((), device=device), requires_grad=unsigned)
        self._scale = torch.tensor(params.scale, dtype=torch.float32, device=device)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest code that a runtime saturates at."""
        bits = self._number.bits
        return (0.0, 2.0**bits - 1) if self._unsigned else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)

    @property
    def step(self) -> Tensor:
        """The scale."""
        return self._scale * torch.exp(self.growth)

    @property
    def zero(self) -> Tensor:
        """The code of 0."""
        low, high = self.bounds
        place = torch.clamp(self.params.zero_point + high * self.tilt, low, high)
        return straight_through(place, place.round())

    def forward(self, x: Tensor) -> Tensor:
        """What a pair of QuantizeLinear and DequantizeLinear gives."""
        step = self.step
        if not self._number.is_integer:
            ratio = torch.clamp(x.float() / step, self._number.least, self._number.largest)
            return (straight_through(ratio, round_codes(torch, ratio, self._number)) * step).to(x.dtype)
        return cast(Tensor, _FakeQuantized.apply(x, step, self.zero, *self.bounds))

    def quantized(self) -> QuantParams:
        """What the artifact stores."""
        with torch.no_grad():
            return replace(self.params, scale=float(self.step), zero_point=int(self.zero))
