"""What trials and priors may bring at worst: the model-guided sampler proposes all the same, without a warning."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tuner.samplers.history import History
from tuner.samplers.model_guided import _choose
from tuner.samplers.problem import Problem, Target

GROUPS = 12
DRAW = np.random.default_rng(0)
SIX = DRAW.integers(0, 3, (6, GROUPS))
MANY = DRAW.integers(0, 3, (300, GROUPS))
COSTS = np.outer(DRAW.lognormal(0, 0.7, GROUPS), [1.0, 0.4, 0.9]) / 20
PROBLEM = Problem(
    {f"g{index}": ("fp16", "int8", "w4a16") for index in range(GROUPS)},
    (Target("map_50_95", 0.5, 0.25), Target("latency_ms", 20.0, 22.0, COSTS, 0.2, 0.008)),
    np.outer(DRAW.lognormal(0, 1.0, GROUPS), [0.0, 1.0, 3.0]),
    np.array([*pairwise(range(GROUPS)), (0, 5)]),
    np.ones(GROUPS),
    np.array([0, 1, 0]),
    np.arange(GROUPS) // 4,
)
FREE = replace(PROBLEM.objectives[1], prior=np.zeros_like(COSTS))
ODD_HARM = np.where(np.arange(GROUPS)[:, None] == 3, 0.0, PROBLEM.harm) * [1.0, 1e12, 1.0]


def outcomes(accuracy: float, latency: float, count: int = 6) -> np.ndarray:
    return np.stack([np.full(count, accuracy), np.full(count, latency)], axis=1)


@pytest.mark.parametrize(
    ("problem", "schemes", "values"),
    [
        pytest.param(PROBLEM, np.zeros((1, GROUPS), dtype=np.int64), outcomes(0.5, 20, 1), id="the reference alone"),
        pytest.param(PROBLEM, SIX, outcomes(0.0, 20), id="all are broken"),
        pytest.param(PROBLEM, SIX, outcomes(0.6, 10), id="all are better than the reference"),
        pytest.param(PROBLEM, SIX, outcomes(0.4, 0), id="no time at all"),
        pytest.param(PROBLEM, SIX, outcomes(0.4, 2e4), id="a thousand times slower than expected"),
        pytest.param(PROBLEM, SIX[[0] * 40], outcomes(0.4, 15, 40), id="one scheme again and again"),
        pytest.param(PROBLEM, MANY, DRAW.lognormal(0, 2, (300, 2)), id="outcomes by chance"),
        pytest.param(replace(PROBLEM, harm=np.zeros((GROUPS, 3))), SIX, outcomes(0.4, 15), id="nothing does harm"),
        pytest.param(replace(PROBLEM, harm=ODD_HARM), SIX, outcomes(0.4, 15), id="units of their own"),
        pytest.param(
            replace(PROBLEM, objectives=(PROBLEM.objectives[0], FREE)), SIX, outcomes(0.4, 15), id="nothing costs"
        ),
        pytest.param(
            replace(PROBLEM, edges=np.zeros((0, 2), dtype=np.int64), edge_sizes=np.zeros(0)),
            SIX,
            outcomes(0.4, 15),
            id="no edges",
        ),
    ],
)
def test_proposes_a_new_scheme(problem: Problem, schemes: np.ndarray, values: np.ndarray) -> None:
    held = frozenset(scheme.tobytes() for scheme in schemes)
    running = np.random.default_rng(1).integers(0, 3, (2, GROUPS))
    history = History(schemes, values, np.full(len(schemes), np.nan), running, held)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _choose(problem, history, np.random.default_rng(0))
    assert found.shape == (GROUPS,) and found.tobytes() not in held
