"""A learnt range has the values of a pair of QuantizeLinear and DequantizeLinear, and the gradients of its formula."""

from __future__ import annotations

import onnx
import pytest

from objectives.quantization.qdq import QuantParams
from search_spaces.formats import Number

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.fake_quant import LearnedRange, straight_through  # noqa: E402

STEP, ZERO = 0.05, 40


@pytest.fixture
def learned() -> LearnedRange:
    params = QuantParams(STEP, ZERO, onnx.TensorProto.UINT8)
    return LearnedRange(params, Number.INT8, True, torch.device("cpu"))


def _formula(one: LearnedRange, x: torch.Tensor) -> torch.Tensor:
    """The same, by automatic differentiation."""
    low, high = one.bounds
    ratio, zero = x / one.step, one.zero
    codes = torch.clamp(straight_through(ratio, ratio.round()) + zero, low, high)
    return (codes - zero) * one.step


def test_values_and_gradients(learned: LearnedRange) -> None:
    values = 12 * torch.rand(4, 1000, generator=torch.Generator().manual_seed(0)) - 3  # both ends saturate
    weights = torch.rand(4, 1000, generator=torch.Generator().manual_seed(1))
    found = []
    for function in (learned, lambda x: _formula(learned, x)):
        x = values.clone().requires_grad_()
        learned.zero_grad()
        y = function(x)
        (weights * y).sum().backward()
        found.append((y.detach(), x.grad, learned.growth.grad.clone(), learned.tilt.grad.clone()))
    for own, theirs in zip(*found, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-3)
    assert 0 < (found[0][1] == 0).float().mean() < 1, "some saturate, and no gradient passes them"


def test_half_precision_goes_in_and_comes_out(learned: LearnedRange) -> None:
    x = torch.linspace(-1, 5, 50).half().requires_grad_()
    y = learned(x)
    y.float().sum().backward()
    assert y.dtype == torch.half and x.grad is not None and x.grad.dtype == torch.half
    torch.testing.assert_close(y.float(), learned(x.detach().float()), rtol=1e-3, atol=1e-3)
