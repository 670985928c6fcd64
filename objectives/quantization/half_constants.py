"""What fp16 loses of constants, epsilons, and sums within one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from search_spaces.model_graph import attribute

#: The largest number of fp16, and the least whose relative precision is full.
LARGEST = float(np.finfo(np.float16).max)
NORMAL = float(np.finfo(np.float16).tiny)
#: Largest rounding error of values below fp16's normal ones.
ROUNDING = 2.0**-25
#: A constant that changes by this share of itself is lost.
_LOST = 0.01
#: Operators that take an offset of their input away, or do not see it.
CENTRED = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization",
           "MeanVarianceNormalization", "Softmax", "LogSoftmax")  # fmt: skip
_NORMALIZATIONS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization")


def half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values as fp16 holds them, any shape."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def lost(values: NDArray[np.float32], *, whole: bool) -> bool:
    """Whether fp16 changes constants by more than a hundredth of themselves.

    Args:
        values: Any shape, within fp16's range.
        whole: Their norm is meant; else any one of them counts.
    """
    size, change = np.abs(values, dtype=np.float64), np.abs(half(values) - values, dtype=np.float64)
    if whole:
        return bool(np.linalg.norm(change) > _LOST * np.linalg.norm(size))
    return bool((change > _LOST * size).any())


def lost_epsilon(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> tuple[str, str] | None:
    """The attribute or constant of a normalization that fp16 loses, and what happens to it; None where none is."""
    if node.op_type not in (*_NORMALIZATIONS, "BatchNormalization"):
        return None
    epsilon = np.float32(attribute(node, "epsilon", 1e-5))
    if node.op_type in _NORMALIZATIONS:
        return ("epsilon", f"{epsilon:.0e} is lost in fp16") if lost(epsilon.reshape(1), whole=True) else None
    variance = constants.get(node.input[4])
    if variance is None:
        return None
    exact = np.asarray(variance, np.float32) + epsilon
    found = half(half(np.asarray(variance, np.float32)) + half(epsilon.reshape(1)))
    if (np.abs(found - exact) > _LOST * exact).any():
        return node.input[4], f"+ epsilon {epsilon:.0e} comes down to {exact.min():.0e}, which fp16 loses"
    return None


def allowed_step(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]], bounds: tuple[float, float], spread: float
) -> float:
    """The largest step of fp16 that the input of a `CENTRED` operator bears.

    Args:
        node: The operator.
        constants: Of the model.
        bounds: Least and greatest value of its input.
        spread: Between the least and the greatest value of its result.
    """
    if node.op_type in ("Softmax", "LogSoftmax"):
        return 2.0**-4  # changes a probability by up to a thirtieth of itself
    if node.op_type != "BatchNormalization" or not {node.input[1], node.input[4]} <= constants.keys():
        return (bounds[1] - bounds[0]) * 2.0**-8
    scale, variance = (np.asarray(constants[node.input[index]], np.float64) for index in (1, 4))
    gain = np.abs(scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))).max(initial=0)
    return float(spread / gain) * 2.0**-8 if gain else np.inf


def channel_norms(node: onnx.NodeProto, weight: NDArray[np.float32]) -> tuple[float, float]:
    """Largest norms over the output channels of a layer's weight, and of what fp16 takes from it.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: As `Layer.weight_shape` has it.
    """
    if not weight.size:
        return 0.0, 0.0
    last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    axis = weight.ndim - 1 if last else 1 if node.op_type == "ConvTranspose" else 0
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return float(np.linalg.norm(rows, axis=1).max()), float(np.linalg.norm(half(rows) - rows, axis=1).max())


def hidden_sum(node: onnx.NodeProto, shape: Sequence[int], bounds: tuple[float, float]) -> float:
    """Bound of the sums that an operator makes between its input and its result; 0 where it makes none.

    Args:
        node: The operator.
        shape: Of its first input; empty where it is not known.
        bounds: Least and greatest value of that input.
    """
    low, high = bounds
    top = max(-low, high)
    if node.op_type == "LayerNormalization":
        return float(np.prod(shape[int(attribute(node, "axis", -1)) :])) * max(top, top**2)
    if node.op_type == "RMSNormalization":
        return float(np.prod(shape[int(attribute(node, "axis", -1)) :])) * top**2
    if node.op_type in ("GroupNormalization", "InstanceNormalization"):
        return float((high - low) ** 2)
    if node.op_type in ("ReduceL2", "LpNormalization", "MeanVarianceNormalization"):
        return float(np.prod(shape)) * top**2
    if node.op_type in ("ReduceLogSumExp", "Softplus", "ReduceLogSum"):
        inner = high if node.op_type == "ReduceLogSum" else np.exp(min(high, 80.0))
        return float(inner * (np.prod(shape) if node.op_type != "Softplus" else 1))
    return 0.0
