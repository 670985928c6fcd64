"""GPTQ: rounds a weight column by column, and lets the columns that follow make up for each error.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
algorithm 1; columns in the order of falling activity (its authors' ``act_order``), which fixed scales allow. In the
form of Chee et al., "QuIP: 2-Bit Quantization of Large Language Models With Guarantees", 2023, section 3: their LDLQ
gives the same codes from a factor of the Hessian itself, so nothing is inverted. Instead of blocks of one size, halves
of halves: the left one is rounded, its differences move the right one in a single product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk

DAMPING = 0.01  # of the mean diagonal, as in the paper
LEAF = 16  # columns that are gone through one by one


class Moments:
    """Running sums over the columns that a layer reads.

    Args:
        groups: Convolution groups.
        width: K, the elements of one column.
    """

    def __init__(self, groups: int, width: int) -> None:
        self._second = np.zeros((groups, width, width), np.float32)
        self._first = np.zeros((groups, width))
        self._count = 0

    def add(self, columns: NDArray[np.float32]) -> None:
        """Adds columns ``(groups, positions, K)``."""
        if len(columns) == 1:  # half the work of a product, in place; the triangle below the diagonal is summed
            ssyrk(1.0, columns[0], beta=1.0, c=self._second[0].T, trans=1, overwrite_c=1)
        else:
            self._second += columns.transpose(0, 2, 1) @ columns
        self._first += columns.sum(axis=1, dtype=np.float64)
        self._count += columns.shape[1]

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(np.isfinite(self._second).all())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean column, ``(groups, K)``."""
        return self._first / self._count

    def activity(self, centred: bool) -> Activity:
        """The second moments, about the mean or about 0, ordered and factored."""
        hessian = self._second.astype(np.float64) / self._count
        if len(hessian) == 1:
            below = np.tril(hessian[0], -1)
            hessian[0] = np.tril(hessian[0]) + below.T
        if centred:
            hessian -= self.mean[:, :, None] * self.mean[:, None, :]
        return Activity.of(hessian)


@dataclass(frozen=True)
class Activity:
    """What the inputs of a layer say about its weight; layers that read the same input share one.

    Attributes:
        hessian: Second moments, float32 ``(groups, K, K)``.
        order: Columns by falling activity, ``(groups, K)``.
        feedback: How far a difference in one column moves those after it, in that order: above the diagonal of
            ``(groups, K, K)``, float64.
    """

    hessian: NDArray[np.float32]
    order: NDArray[np.intp]
    feedback: NDArray[np.float64]

    @staticmethod
    def of(hessian: NDArray[np.float64]) -> Activity:
        """Orders and factors second moments."""
        order = np.argsort(-np.einsum("gkk->gk", hessian), axis=1, kind="stable")
        ordered = np.stack([part[index].take(index, axis=1) for part, index in zip(hessian, order, strict=True)])
        return Activity(hessian.astype(np.float32), order, _feedback(ordered))

    def round(
        self, weight: NDArray[np.float32], unit: NDArray[np.float32], bounds: tuple[float, float]
    ) -> NDArray[np.int8]:
        """`gptq` on these inputs."""
        return gptq(weight, unit, bounds, self)


def gptq(
    weight: NDArray[np.float32],
    unit: NDArray[np.float32],
    bounds: tuple[float, float],
    activity: Activity,
) -> NDArray[np.int8]:
    """Chooses the codes of a weight for the least output error.

    The greedy order can end above plain rounding for single channels; such a channel, whose error is known here
    exactly, takes plain rounding.

    Args:
        weight: ``(groups, rows, K)``.
        unit: Size of one step of every element, likewise.
        bounds: Least and largest code.
        activity: Of the inputs.

    Returns:
        Codes, int8, ``(groups, rows, K)``.
    """
    order, feedback = activity.order[:, :, None], activity.feedback
    rest = np.take_along_axis(weight.transpose(0, 2, 1).astype(np.float64), order, axis=1)
    step = np.take_along_axis(unit.transpose(0, 2, 1).astype(np.float64), order, axis=1)
    moved = np.zeros_like(rest)
    codes = np.empty(rest.shape, dtype=np.int8)

    def round_columns(begin: int, end: int) -> None:
        if end - begin > LEAF:
            middle = (begin + end) // 2
            round_columns(begin, middle)
            moved[:, middle:end] += feedback[:, begin:middle, middle:end].transpose(0, 2, 1) @ rest[:, begin:middle]
            round_columns(middle, end)
            return
        for index in range(begin, end):
            code = np.clip(np.rint((rest[:, index] + moved[:, index]) / step[:, index]), *bounds)
            codes[:, index] = code
            rest[:, index] -= code * step[:, index]  # from here on the difference that the code leaves
            moved[:, index + 1 : end] += feedback[:, index, index + 1 : end, None] * rest[:, index, None]

    round_columns(0, rest.shape[1])
    found = np.empty_like(codes)
    np.put_along_axis(found, order, codes, axis=1)
    found = found.transpose(0, 2, 1)
    nearest = np.clip(np.rint(weight / unit), *bounds).astype(np.int8)
    both = np.concatenate([found * unit - weight, nearest * unit - weight], axis=1)
    ours, plain = np.split(output_error(both, activity.hessian), 2, axis=1)
    return np.asarray(np.where((ours <= plain)[:, :, None], found, nearest))


def output_error(difference: NDArray[np.floating], hessian: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean squared output error of a weight difference ``(groups, rows, K)``, per row: ``(groups, rows)``."""
    return np.asarray(np.einsum("grk,grk->gr", difference @ hessian, difference))


def _feedback(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """The strict upper part of ``V / diagonal(V)``, where V is upper triangular and ``V V^T`` the damped Hessian.

    The output error of a difference d is ``|d V|^2``: column k of it vanishes where d_k makes up for the d before it.
    An input that is always 0 (or, in a centred Hessian, constant) has no say; it gets the mean's weight so that its
    column is rounded and moves no other.
    """
    diagonal = np.einsum("gkk->gk", hessian).copy()
    mean = diagonal.mean(axis=1, keepdims=True)
    mean[mean <= 0] = 1.0
    damping = DAMPING
    while True:
        columns = np.einsum("gkk->gk", hessian)
        columns[:] = diagonal + np.where(diagonal > 0, damping * mean, mean)
        try:  # flipped both ways, a lower factor is an upper one
            factor = np.linalg.cholesky(hessian[:, ::-1, ::-1])[:, ::-1, ::-1]
            factor = factor / np.einsum("gkk->gk", factor)[:, None, :]
            if np.isfinite(factor).all():
                return np.asarray(factor)
        except np.linalg.LinAlgError:
            pass
        damping *= 10  # moments of very unequal size: the identity's share grows until the factor exists
