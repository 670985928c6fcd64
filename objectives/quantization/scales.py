"""Scales and codes for the least output error: shrunk scales before GPTQ, coordinate descent after it.

Every array here is ``(groups, K, rows)``, float32, so that all rows of a weight take a step at once. The functions are
the same for NumPy and PyTorch, which differ in nothing that they use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from objectives.quantization.grid import round_codes
from search_spaces.formats import NumberSpec

SHRINK = tuple(1 - 0.05 * step for step in range(12))  # of the scale that makes the largest weight the largest code
SWEEPS = 2  # a third one takes another half per cent off the output error
LEAF = 32  # columns that are gone through one by one
_FP32 = np.finfo(np.float32)

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True)
class Sharing:
    """Which elements of a row share a scale: those of one block of input channels and one kernel tap.

    Attributes:
        blocks: Blocks in a row.
        size: Input channels of a block.
        taps: Kernel taps, each with scales of its own; 1 where a whole row shares one scale.
        number: Format that scales are stored in; None: float32.
        unit: What stored scales are multiples of.
        free: Each scale may change for itself; not where one scale serves all rows.
    """

    blocks: int
    size: int
    taps: int
    number: NumberSpec | None = None
    unit: float = 1.0
    free: bool = True

    def spread(self, scale: Array) -> Array:
        """Scales ``(groups, blocks x taps, rows)`` as the step of every element."""
        block, inner = np.divmod(np.arange(self.blocks * self.size * self.taps), self.size * self.taps)
        return scale[:, block * self.taps + inner % self.taps]

    def total(self, values: Array) -> Array:
        """Sums over the elements that share a scale, ``(groups, blocks x taps, rows)``."""
        groups, width, rows = values.shape
        split = values.reshape(groups, self.blocks, self.size, self.taps, rows)
        return split.sum(axis=2).reshape(groups, width // self.size, rows)

    def columns(self, place: int) -> slice:
        """The columns of one scale."""
        block, tap = divmod(place, self.taps)
        begin = block * self.size * self.taps
        return slice(begin + tap, begin + self.size * self.taps, self.taps)

    def stored(self, xp: Any, scale: Array) -> Array:
        """Scales as the artifact can hold them."""
        return round_scales(xp, scale, self.number, self.unit)


def round_scales(xp: Any, scale: Array, number: NumberSpec | None, unit: float = 1.0) -> Array:
    """The nearest scales that can be stored; none is below the least normal number, which would lose its bits.

    Args:
        xp: ``numpy`` or ``torch``.
        scale: Positive, float32.
        number: Format that they are stored in; None: float32.
        unit: What stored scales are multiples of, a power of two.
    """
    if number is None:
        return xp.clip(scale, float(_FP32.tiny), float(_FP32.max))
    return round_codes(xp, xp.clip(scale / unit, number.least_normal, number.largest), number) * unit


class Solver(Protocol):
    """What a search asks of `gptq.Activity` or its twin in PyTorch."""

    @property
    def hessian(self) -> Array:
        """Second moments of the inputs, ``(groups, K, K)``."""

    @property
    def pivots(self) -> Array:
        """What a difference of an element costs once those after it have made up for it, ``(groups, K)``."""

    def feed_back(self, weight: Array, step: Array, number: NumberSpec) -> Array:
        """GPTQ's codes."""


def search(
    xp: Any, weight: Array, scale: Array, sharing: Sharing, number: NumberSpec, solver: Solver
) -> tuple[Array, Array]:
    """Chooses scales and codes of a weight for the least output error.

    The given scales and shrunk ones go through GPTQ; of these and plain rounding every row keeps the best, and descends
    from there. So no row ends above GPTQ, or rounding, with the given scales.

    Args:
        xp: ``numpy`` or ``torch``.
        weight: ``(groups, K, rows)``.
        scale: Where the search begins, ``(groups, scales, rows)``.
        sharing: Which elements share a scale.
        number: Format of the codes.
        solver: Knows the inputs.

    Returns:
        Codes, as floats, and scales.
    """
    hessian = solver.hessian
    step = sharing.spread(scale)
    codes = round_codes(xp, weight / step, number)
    error = _error(xp, weight - codes * step, hessian)
    starts = [scale]
    if sharing.free:
        starts.append(_shrink(xp, weight, scale, sharing, number, solver.pivots))
    for tried in starts:
        found = solver.feed_back(weight, sharing.spread(tried), number)
        codes, scale, error = _best(xp, (found, tried), (codes, scale, error), weight, sharing, hessian)
    found, fitted = codes, scale
    for _ in range(SWEEPS):
        found = _move_codes(xp, weight, found, sharing.spread(fitted), number, hessian)
        if sharing.free:
            fitted = _fit_scales(xp, weight, found, fitted, sharing, hessian)
    return _best(xp, (found, fitted), (codes, scale, error), weight, sharing, hessian)[:2]


def _best(
    xp: Any,
    tried: tuple[Array, Array],
    known: tuple[Array, Array, Array],
    weight: Array,
    sharing: Sharing,
    hessian: Array,
) -> tuple[Array, Array, Array]:
    """The better codes and scales of every row, with their error; what is not a number is never better."""
    codes, scale = tried
    error = _error(xp, weight - codes * sharing.spread(scale), hessian)
    better = error < known[2]
    row = better[:, None]
    return xp.where(row, codes, known[0]), xp.where(row, scale, known[1]), xp.where(better, error, known[2])


def _error(xp: Any, difference: Array, hessian: Array) -> Array:
    """Mean squared output error, ``(groups, rows)``."""
    return ((hessian @ difference) * difference).sum(axis=1)


def _shrink(xp: Any, weight: Array, scale: Array, sharing: Sharing, number: NumberSpec, pivots: Array) -> Array:
    """The factor of every scale that leaves the least ``sum of pivot x difference^2`` after plain rounding.

    That sum is the output error of codes found with feedback, whose differences are about those of plain rounding
    (Chee et al., QuIP, 2023, theorem 1), and it has no cross terms: every scale can be chosen by itself.
    """
    chosen, least = scale, xp.inf * xp.ones_like(scale)
    for factor in SHRINK:
        tried = sharing.stored(xp, scale * factor)
        step = sharing.spread(tried)
        difference = round_codes(xp, weight / step, number) * step - weight
        noise = sharing.total(pivots[:, :, None] * difference * difference)
        better = noise < least
        chosen, least = xp.where(better, tried, chosen), xp.where(better, noise, least)
    return chosen


def _move_codes(xp: Any, weight: Array, codes: Array, step: Array, number: NumberSpec, hessian: Array) -> Array:
    """One sweep over the columns: each takes the code that is best for what all others leave.

    With the difference d and its gradient ``H d``, column k alone is best at ``d_k - (H d)_k / H_kk``; the error is a
    parabola in it, so the nearest code is the best one. Source: Behdin et al., "QuantEase: Optimization-based
    Quantization for Language Models", 2023, with the gradient kept up to date instead of computed for every column.
    """
    diagonal = xp.einsum("gkk->gk", hessian)
    inverse = xp.where(diagonal > 0, 1 / xp.where(diagonal > 0, diagonal, 1.0), 0.0)[:, :, None]
    codes = codes + 0.0
    gradient = hessian @ (weight - codes * step)
    width = weight.shape[1]
    for begin in range(0, width, LEAF):
        end = min(begin + LEAF, width)
        before = codes[:, begin:end] + 0.0
        for column in range(begin, end):
            moved = gradient[:, column] * inverse[:, column] / step[:, column]
            code = round_codes(xp, codes[:, column] + moved, number)
            change = (codes[:, column] - code) * step[:, column]
            gradient[:, begin:end] += hessian[:, begin:end, column, None] * change[:, None]
            codes[:, column] = code
        change = (before - codes[:, begin:end]) * step[:, begin:end]
        gradient[:, end:] += hessian[:, end:, begin:end] @ change
    return codes


def _fit_scales(xp: Any, weight: Array, codes: Array, scale: Array, sharing: Sharing, hessian: Array) -> Array:
    """One sweep over the scales: each moves to the least squares of the output error, the codes and the others held.

    For the codes q of one scale and the gradient ``g = H d`` of the difference, that is a step of
    ``(q g) / (q H q)``; the nearest scale that can be stored is taken where it is an improvement.
    """
    scale = scale + 0.0
    gradient = hessian @ (weight - codes * sharing.spread(scale))
    for place in range(scale.shape[1]):
        columns = sharing.columns(place)
        held = codes[:, columns]
        slope = hessian[:, :, columns] @ held
        curvature = (slope[:, columns] * held).sum(axis=1)
        descent = (gradient[:, columns] * held).sum(axis=1)
        ideal = scale[:, place] + descent / xp.where(curvature > 0, curvature, 1.0)
        step = sharing.stored(xp, ideal) - scale[:, place]
        step = xp.where((ideal > 0) & (2 * descent * step > curvature * step * step), step, 0.0)
        scale[:, place] += step
        gradient -= step[:, None] * slope
    return scale
