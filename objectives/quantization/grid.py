"""The grids of number formats: even for integers, finer towards zero for floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from search_spaces.formats import NumberSpec

Array = Any  # numpy.ndarray or torch.Tensor


def round_codes(xp: Any, values: Array, number: NumberSpec) -> Array:
    """The nearest codes, ties to even, within the format's range.

    A float's step is that of its binade; below the least normal number it stays what it is there.

    Args:
        xp: ``numpy`` or ``torch``.
        values: Weights over scales, any float type.
        number: The format.

    Returns:
        Codes as floats of that type, in the shape of `values`.
    """
    if number.is_integer:
        return xp.clip(xp.round(values), number.least, number.largest)
    mantissa = number.bits - 1 - number.exponent
    values = xp.clip(values, number.least, number.largest)
    step = xp.exp2(xp.floor(xp.log2(xp.clip(xp.abs(values), number.least_normal, None))) - mantissa)
    return xp.round(values / step) * step


def code_type(number: NumberSpec) -> np.dtype[np.generic]:
    """What holds one code in memory: whole bytes."""
    if number.is_integer:
        return np.dtype(f"int{max(8, number.bits)}")
    return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(number.onnx))
