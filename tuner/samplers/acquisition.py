"""Expected hypervolume improvement: how much a candidate is expected to add to the front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.samplers.optuna_compat import non_dominated_boxes
from tuner.samplers.problem import Floats

#: Boxes times samples that one step of the sum handles, so that memory stays below 100 MiB.
_CHUNK = 4_000_000


def improvement(points: Floats, front: Floats, worst: Floats) -> Floats:
    """Hypervolume that each point alone would add to a front.

    The non-dominated region is cut into boxes; a point adds its overlap with every box (Lacour, Klamroth and Fonseca,
    "A box decomposition algorithm to compute the hypervolume indicator", 2017).

    Args:
        points: Shape ``(points, objectives)``, all minimised.
        front: Shape ``(n, objectives)``; dominated points do no harm.
        worst: The reference point, shape ``(objectives,)``.

    Returns:
        Shape ``(points,)``.
    """
    inside = front[(front < worst).all(axis=1)]
    if not len(inside):
        return np.asarray(np.prod(np.maximum(worst - points, 0.0), axis=1))
    lower, upper = non_dominated_boxes(inside, worst)
    found = np.zeros(len(points))
    step = max(1, _CHUNK // (len(lower) * points.shape[1]))
    for start in range(0, len(points), step):
        part = points[start : start + step, None, :]
        found[start : start + step] = np.maximum(upper - np.maximum(lower, part), 0.0).prod(axis=2).sum(axis=1)
    return found


def expected_improvement(
    samples: Floats, front: Floats, worst: Floats, bounds: Floats, optimised: NDArray[np.bool_]
) -> Floats:
    """Mean of `improvement` over samples of each candidate; a sample that breaks a bound adds nothing.

    Args:
        samples: Shape ``(candidates, samples, objectives)``, all minimised.
        front: Shape ``(n, objectives)``.
        worst: The reference point, shape ``(objectives,)``. A bound is no part of it: a scheme near the bound is worth
            as much as without one.
        bounds: What must not be exceeded, shape ``(objectives,)``; inf for none.
        optimised: Which objectives are optimised, the others are only bounded; shape ``(objectives,)``.

    Returns:
        Shape ``(candidates,)``.
    """
    kept = (samples <= bounds).all(axis=2)
    feasible = front[(front <= bounds).all(axis=1)][:, optimised]
    points = samples[..., optimised]
    found = improvement(points.reshape(-1, points.shape[2]), feasible, worst[optimised])
    return np.asarray((found.reshape(kept.shape) * kept).mean(axis=1))


def nondominated(points: Floats) -> NDArray[np.int64]:
    """Rows that no other row dominates, all objectives minimised; of equal rows, all."""
    below, above = points[None, :, :], points[:, None, :]
    worse = np.all(below <= above, axis=2) & np.any(below < above, axis=2)
    return np.flatnonzero(~worse.any(axis=1))
