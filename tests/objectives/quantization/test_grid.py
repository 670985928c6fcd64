"""Rounding to a format's grid against the types of ml_dtypes and NumPy."""

import numpy as np
import pytest

from objectives.quantization.grid import code_type, round_codes
from search_spaces.formats import Number, NumberSpec

FLOATS = [Number.FP16, Number.FP8, Number.NVFP4]


def _values() -> np.ndarray:
    draw = np.random.default_rng(0)
    drawn = draw.standard_normal(50_000) * np.exp2(draw.uniform(-12, 12, 50_000))
    ties = np.arange(-32, 33) / 8
    return np.concatenate([drawn, ties, [0.0, 1e-30, -1e-30, 1e30]]).astype(np.float32)


@pytest.mark.parametrize("number", FLOATS, ids=lambda number: number.name)
def test_floats_round_as_a_cast_does(number: NumberSpec) -> None:
    values = _values()
    cast = np.clip(values, number.least, number.largest).astype(code_type(number)).astype(np.float32)
    np.testing.assert_array_equal(round_codes(np, values, number), cast)


def test_the_codes_of_four_bits() -> None:
    found = np.unique(np.abs(round_codes(np, _values(), Number.NVFP4)))
    np.testing.assert_array_equal(found, [0, 0.5, 1, 1.5, 2, 3, 4, 6])
    np.testing.assert_array_equal(np.unique(round_codes(np, _values(), Number.INT4)), np.arange(-8, 8))


@pytest.mark.parametrize("number", [*FLOATS, Number.INT4], ids=lambda number: number.name)
def test_pytorch_rounds_alike(number: NumberSpec) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    values = _values()
    found = round_codes(torch, torch.from_numpy(values), number).numpy()
    np.testing.assert_array_equal(found, round_codes(np, values, number))
