"""What a search may be told beforehand of the harm of choices: right, poor, nothing, or half right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from tuner.samplers.problem import Floats


def rank_correlation(prior: Floats, effects: Floats) -> float:
    """Spearman of layers within a format, mean over the quantized formats; 0 of a prior that tells none apart."""
    columns = [f for f in range(1, prior.shape[1]) if np.ptp(prior[:, f]) > 0]
    found = [float(spearmanr(prior[:, f], effects[:, f]).statistic) for f in columns]
    return float(sum(found) / (prior.shape[1] - 1))


def _noisy(draw: np.random.Generator, effects: Floats, correlation: float) -> Floats:
    """Noise that most is shared by all formats of a layer, as strong as the wanted rank correlation asks for."""
    layer, own = draw.normal(0, 1, (len(effects), 1)), draw.normal(0, 1, effects.shape)
    mixed = 0.9 * layer + np.sqrt(1 - 0.9**2) * own
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        found = rank_correlation(effects * np.exp(middle * mixed), effects)
        low, high = (middle, high) if found > correlation else (low, middle)
    return np.asarray(effects * np.exp(low * mixed) * _units(draw, effects.shape[1], 0.5))


def _units(draw: np.random.Generator, formats: int, spread: float) -> Floats:
    """A divergence weighs rounding and clipping unlike the mAP, and is in no unit of it."""
    return np.asarray(np.exp(draw.uniform(-5, 5) + draw.normal(0, spread, formats)))


def good(draw: np.random.Generator, effects: Floats) -> Floats:
    """Rank correlation .85."""
    return _noisy(draw, effects, 0.85)


def poor(draw: np.random.Generator, effects: Floats) -> Floats:
    """Rank correlation .3."""
    return _noisy(draw, effects, 0.3)


def none(draw: np.random.Generator, effects: Floats) -> Floats:
    """Every quantized choice alike."""
    return (effects > 0).astype(np.float64)


def layers(draw: np.random.Generator, effects: Floats) -> Floats:
    """Right on layers, wrong on formats: their level says nothing."""
    right = _noisy(draw, effects, 0.85)
    level = np.array([column[column > 0].mean() if (column > 0).any() else 1.0 for column in right.T])
    return np.asarray(right / level * level.mean() * _units(draw, effects.shape[1], 0.8))


def formats(draw: np.random.Generator, effects: Floats) -> Floats:
    """Right on formats, wrong on layers."""
    return np.asarray(effects[draw.permutation(len(effects))] * _units(draw, effects.shape[1], 0.2))


PRIORS: dict[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "good": good,
    "poor": poor,
    "none": none,
    "layers": layers,
    "formats": formats,
}
