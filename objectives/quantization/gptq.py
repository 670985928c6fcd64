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

from objectives.quantization.grid import round_codes
from objectives.quantization.scales import Sharing, search
from search_spaces.formats import NumberSpec

DAMPING = 0.01  # of the mean diagonal, as in the paper
LEAF = 16  # columns that are gone through one by one


class Means:
    """Running sum over the columns that a layer reads: all that correcting a bias asks for.

    Args:
        groups: Convolution groups.
        width: K, the elements of one column.
    """

    def __init__(self, groups: int, width: int) -> None:
        self._first = np.zeros((groups, width))
        self._count = 0

    def add(self, columns: NDArray[np.float32]) -> None:
        """Adds columns ``(groups, positions, K)``."""
        self._first += columns.sum(axis=1, dtype=np.float64)
        self._count += columns.shape[1]

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(np.isfinite(self._first).all())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean column, ``(groups, K)``."""
        return self._first / self._count


class Moments(Means):
    """Running sums over the columns that a layer reads, and over their products.

    Args:
        groups: Convolution groups.
        width: K, the elements of one column.
    """

    def __init__(self, groups: int, width: int) -> None:
        super().__init__(groups, width)
        self._second = np.zeros((groups, width, width), np.float32)

    def add(self, columns: NDArray[np.float32]) -> None:
        """Adds columns ``(groups, positions, K)``."""
        if len(columns) == 1:  # half the work of a product, in place; the triangle below the diagonal is summed
            ssyrk(1.0, columns[0], beta=1.0, c=self._second[0].T, trans=1, overwrite_c=1)
        else:
            self._second += columns.transpose(0, 2, 1) @ columns
        super().add(columns)

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(np.isfinite(self._second).all())

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
        pivots: What a difference in a column adds to the output error once those after it have made up for it, float32
            ``(groups, K)``.
    """

    hessian: NDArray[np.float32]
    order: NDArray[np.intp]
    feedback: NDArray[np.float64]
    pivots: NDArray[np.float32]

    @staticmethod
    def of(hessian: NDArray[np.float64]) -> Activity:
        """Orders and factors second moments."""
        order = np.argsort(-np.einsum("gkk->gk", hessian), axis=1, kind="stable")
        ordered = np.stack([part[index].take(index, axis=1) for part, index in zip(hessian, order, strict=True)])
        feedback, squares = _feedback(ordered)
        pivots = np.empty(order.shape, np.float32)
        np.put_along_axis(pivots, order, squares.astype(np.float32), axis=1)
        return Activity(hessian.astype(np.float32), order, feedback, pivots)

    def feed_back(
        self, weight: NDArray[np.float32], step: NDArray[np.float32], number: NumberSpec
    ) -> NDArray[np.float32]:
        """GPTQ: codes by falling activity, each column making up for those before it.

        The greedy order can end above plain rounding for single rows; who calls compares.

        Args:
            weight: ``(groups, K, rows)``.
            step: Size of one step of every element, likewise.
            number: Format of the codes.

        Returns:
            Codes, float32, ``(groups, K, rows)``.
        """
        order, feedback = self.order[:, :, None], self.feedback
        rest = np.take_along_axis(weight, order, axis=1).astype(np.float64)
        steps = np.take_along_axis(step, order, axis=1).astype(np.float64)
        moved = np.zeros_like(rest)
        codes = np.empty(rest.shape, dtype=np.float32)

        def round_columns(begin: int, end: int) -> None:
            if end - begin > LEAF:
                middle = (begin + end) // 2
                round_columns(begin, middle)
                moved[:, middle:end] += feedback[:, begin:middle, middle:end].transpose(0, 2, 1) @ rest[:, begin:middle]
                round_columns(middle, end)
                return
            for index in range(begin, end):
                code = round_codes(np, (rest[:, index] + moved[:, index]) / steps[:, index], number)
                codes[:, index] = code
                rest[:, index] -= code * steps[:, index]  # from here on the difference that the code leaves
                moved[:, index + 1 : end] += feedback[:, index, index + 1 : end, None] * rest[:, index, None]

        round_columns(0, rest.shape[1])
        found = np.empty_like(codes)
        np.put_along_axis(found, order, codes, axis=1)
        return found

    def search(
        self, weight: NDArray[np.float32], scale: NDArray[np.float32], sharing: Sharing, number: NumberSpec
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`scales.search` on these inputs.

        Args:
            weight: ``(groups, rows, K)``.
            scale: Where the search begins, ``(groups, rows, scales)``.
            sharing: Which elements share a scale.
            number: Format of the codes.

        Returns:
            Codes, as floats, and scales, in the shapes of `weight` and `scale`.
        """
        columns = np.ascontiguousarray(weight.transpose(0, 2, 1))
        codes, found = search(np, columns, scale.transpose(0, 2, 1), sharing, number, self)
        return codes.transpose(0, 2, 1), found.transpose(0, 2, 1)


def _feedback(hessian: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``V / diagonal(V)``, where V is upper triangular and ``V V^T`` the damped Hessian, and the diagonal's squares.

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
        columns[:] = diagonal + np.where(diagonal > 0, damping, max(1.0, damping / DAMPING)) * mean
        try:  # flipped both ways, a lower factor is an upper one
            factor = np.linalg.cholesky(hessian[:, ::-1, ::-1])[:, ::-1, ::-1]
            pivots = np.einsum("gkk->gk", factor)
            feedback = factor / pivots[:, None, :]
            if np.isfinite(feedback).all():
                return feedback, np.square(pivots)
        except np.linalg.LinAlgError:
            pass
        damping *= 10  # moments of very unequal size: the identity's share grows until the factor exists
