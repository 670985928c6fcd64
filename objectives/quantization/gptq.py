"""GPTQ: rounds a weight column by column, and lets the columns that follow make up for each error.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
algorithm 1; columns in the order of falling activity (its authors' ``act_order``), which fixed scales allow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

_DAMPING = 0.01  # of the mean diagonal, as in the paper
_BLOCK = 128  # columns whose updates are put off together


def gptq(
    weight: NDArray[np.float32],
    unit: NDArray[np.float32],
    bounds: tuple[float, float],
    hessian: NDArray[np.float64],
) -> NDArray[np.int8]:
    """Chooses the codes of a weight for the least output error.

    The greedy order can end above plain rounding for single channels; such a channel, whose error is known here
    exactly, takes plain rounding.

    Args:
        weight: ``(groups, rows, K)``.
        unit: Size of one step of every element, likewise.
        bounds: Least and largest code.
        hessian: ``(groups, K, K)``: second moments of the inputs.

    Returns:
        Codes, int8, ``(groups, rows, K)``.
    """
    diagonal = np.einsum("gkk->gk", hessian)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    upper = _inverse_factor(_ordered(hessian, order))
    rest = np.take_along_axis(weight.astype(np.float64), order[:, None], axis=2)
    step = np.take_along_axis(unit.astype(np.float64), order[:, None], axis=2)
    codes = np.empty(rest.shape, dtype=np.int8)
    columns = rest.shape[2]
    for begin in range(0, columns, _BLOCK):
        end = min(begin + _BLOCK, columns)
        errors = np.empty((*rest.shape[:2], end - begin))
        for index in range(begin, end):
            code = np.clip(np.rint(rest[:, :, index] / step[:, :, index]), *bounds)
            codes[:, :, index] = code
            error = (rest[:, :, index] - code * step[:, :, index]) / upper[:, index, index][:, None]
            rest[:, :, index:end] -= error[:, :, None] * upper[:, None, index, index:end]
            errors[:, :, index - begin] = error
        rest[:, :, end:] -= errors @ upper[:, begin:end, end:]
    back = np.argsort(order, axis=1)
    codes = np.take_along_axis(codes, back[:, None], axis=2)
    nearest = np.clip(np.rint(weight / unit), *bounds).astype(np.int8)
    better = output_error(codes * unit - weight, hessian) <= output_error(nearest * unit - weight, hessian)
    return np.where(better[:, :, None], codes, nearest)


def output_error(difference: NDArray[np.floating], hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared output error of a weight difference ``(groups, rows, K)``, per row: ``(groups, rows)``."""
    return np.asarray(np.einsum("grk,grk->gr", difference @ hessian, difference))


def _ordered(hessian: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    rows = np.take_along_axis(hessian, order[:, :, None], axis=1)
    return np.take_along_axis(rows, order[:, None, :], axis=2)


def _upper(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper U with ``U^T U = inverse(hessian)``, at a third of the cost of inverting first.

    Flipped both ways, the lower Cholesky factor is an upper one, ``hessian = V V^T``; then U = inverse(V).
    """
    factor = np.linalg.cholesky(hessian[:, ::-1, ::-1])[:, ::-1, ::-1]
    if hessian.shape[1] < 64:  # many small ones: one batched call
        return np.asarray(np.triu(np.linalg.inv(factor)))
    one = np.eye(hessian.shape[1])
    return np.stack([solve_triangular(part, one, check_finite=False) for part in factor])


def _inverse_factor(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper Cholesky factor of the damped inverse, ``(groups, K, K)``.

    An input that is always 0 (or, in a centred Hessian, constant) has no say; it gets the mean's weight so that its
    column is rounded and moves no other.
    """
    diagonal = np.einsum("gkk->gk", hessian)
    mean = diagonal.mean(axis=1, keepdims=True)
    mean[mean <= 0] = 1.0
    damping = _DAMPING
    while True:
        damped = hessian.copy()
        columns = np.einsum("gkk->gk", damped)
        columns += np.where(diagonal > 0, damping * mean, mean)
        try:
            factor = _upper(damped)
            if np.isfinite(factor).all():
                return factor
        except np.linalg.LinAlgError:
            pass
        damping *= 10  # moments of very unequal size: the identity's share grows until the factor exists
