"""Effects of choices as a regression takes them: which deviates move each one, and what a scheme adds up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_array, hstack

from tuner.samplers.problem import Floats, Ints, Problem


def memberships(problem: Problem) -> tuple[csr_array, list[int]]:
    """Deviates of a choice: its own, of its group, its module and its format, and one that all share.

    Returns:
        0 and 1, shape ``(groups * formats, deviates)``; and how many deviates each of the five kinds has.
    """
    groups, formats = problem.groups, len(problem.formats)
    group, name = np.divmod(np.arange(groups * formats), formats)
    kinds = [
        np.arange(groups * formats),
        group,
        problem.blocks[group],
        name,
        np.zeros(groups * formats, dtype=np.int64),
    ]
    parts = [indicator(kind) for kind in kinds]
    return csr_array(hstack(parts)), [part.shape[1] for part in parts]


def indicator(kind: Ints) -> csr_array:
    """1 where an effect is of a kind, shape ``(effects, kinds)``."""
    count = len(kind)
    return csr_array((np.ones(count), (np.arange(count), kind)), shape=(count, int(kind.max()) + 1))


def joined(parts: Sequence[csr_array]) -> csr_array:
    """Effects that share no deviate."""
    return csr_array(block_diag(parts))


def repeated(counts: Sequence[int], values: Sequence[float]) -> Floats:
    """One value for all deviates of each kind."""
    return np.repeat(np.asarray(values, dtype=np.float64), counts)


def chosen(schemes: Ints, used: NDArray[np.bool_]) -> csr_array:
    """1 for each choice of a scheme that has an effect, shape ``(schemes, groups * formats)``.

    Args:
        schemes: Shape ``(n, groups)``.
        used: Whether a choice has an effect, shape ``(groups, formats)``.
    """
    count, groups = schemes.shape
    rows, columns = np.repeat(np.arange(count), groups), (schemes + used.shape[1] * np.arange(groups)).ravel()
    kept = used.ravel()[columns]
    return csr_array((np.ones(int(kept.sum())), (rows[kept], columns[kept])), shape=(count, used.size))
