"""The front of a synthetic search as one finds it who sees the truth itself, and shares of its hypervolume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from synthetic_family import REFERENCE_MAP, WORST

from tuner.samplers.acquisition import nondominated
from tuner.samplers.optuna_compat import hypervolume
from tuner.samplers.problem import Floats, Ints

_PRICES, _KICKS, _SWEEPS = 64, 4, 5


def losses(values: Floats) -> Floats:
    """Outcomes as shares of the reference's, all minimised."""
    found: Floats = values.copy()
    found[:, 0] = -found[:, 0] / REFERENCE_MAP
    return found


def volume(values: Floats) -> float:
    """Hypervolume of outcomes of shape ``(n, objectives)``."""
    worst = np.array(WORST[: values.shape[1]])
    worst[0] = -worst[0] / REFERENCE_MAP
    return hypervolume(losses(values), worst)


def true_front(truth: Callable[[Ints], Floats], layers: int, formats: int, folder: Path | None = None) -> Floats:
    """Outcomes of a local search for a hundred prices of latency, with kicks; of two objectives.

    Args:
        truth: Outcomes of schemes.
        layers: Number of layers.
        formats: Number of formats; the first one is the unquantized.
        folder: Keeps what was found, by the truth of some random schemes.
    """
    draw = np.random.default_rng(0)
    sign = truth(draw.integers(0, formats, (8, layers)) * (draw.random((8, layers)) < 0.3)).round(9).tobytes()
    path = None if folder is None else folder / f"{hashlib.sha256(sign).hexdigest()[:16]}.npy"
    if path is not None and path.exists():
        return np.asarray(np.load(path))
    prices = np.geomspace(0.01, 10.0, _PRICES)

    def energy(schemes: Ints, price: Floats) -> Floats:
        outcomes = truth(schemes)
        return np.asarray(-np.log(np.maximum(outcomes[:, 0] / REFERENCE_MAP, 1e-3)) + price * outcomes[:, 1])

    def descend(schemes: Ints) -> Ints:
        found: Ints = schemes.copy()
        for _ in range(_SWEEPS):
            before = found.copy()
            for layer in draw.permutation(layers):
                tried = np.repeat(found[:, None], formats, axis=1)
                tried[:, :, layer] = np.arange(formats)
                scores = energy(tried.reshape(-1, layers), np.repeat(prices, formats)).reshape(-1, formats)
                found[:, layer] = scores.argmin(axis=1)
            if (found == before).all():
                break
        return found

    best = np.zeros((_PRICES, layers), dtype=np.int64)
    score, kept = np.full(_PRICES, np.inf), []
    for kick in range(_KICKS + formats):
        if kick < formats:  # from every uniform scheme
            start = np.full((_PRICES, layers), kick)
        else:  # a run of neighbours moves together, for they pay for differing; a price may begin at its neighbour's
            begin, length = draw.integers(0, layers, (_PRICES, 1)), draw.integers(1, 13, (_PRICES, 1))
            position = np.arange(layers)
            run = (position >= begin) & (position < begin + length)
            near = np.clip(np.arange(_PRICES) + draw.integers(-1, 2, _PRICES), 0, _PRICES - 1)
            start = np.where(run, draw.integers(0, formats, (_PRICES, 1)), best[near])
        found = descend(start)
        total = energy(found, prices)
        best = np.where((total < score)[:, None], found, best)
        score = np.minimum(score, total)
        kept.append(found)
    outcomes = truth(np.unique(np.concatenate(kept), axis=0))
    front = outcomes[nondominated(losses(outcomes))]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, front)
    return front
