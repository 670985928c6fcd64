"""Families of synthetic searches that differ in structure, each with priors of several worths; all follows from seeds.

What they share is what real searches have: formats of one activation domain that differ still break a fusion, measured
mAPs scatter by a tenth of a point and latencies by one per cent, and the tables of costs are off by a quarter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import synthetic_family
from family_losses import LOSSES, Harm, make_harm
from family_networks import NETWORKS
from family_priors import PRIORS, rank_correlation
from synthetic_family import FORMATS, REFERENCE_MAP, WORST

from tuner.samplers.problem import Floats, Ints, Problem, Target

DOMAINS = np.array([0, 1, 0, 0, 2, 2])
#: What two different formats of one activation domain cost on an edge, as a share of a reformat.
BROKEN_FUSION = 0.2
#: Standard deviations of a measured mAP, and of a latency as a share of itself.
NOISE = (0.001, 0.01)
_FIXED = 0.15


@dataclass(frozen=True)
class Family:
    """One structure.

    Attributes:
        network: Name in `NETWORKS`.
        loss: Name in `LOSSES`.
        harm: Mean harm of each format, shape ``(formats,)``.
        speed: Time of each format as a share of the unquantized one's, shape ``(formats,)``.
        tail: Spread of the logarithm of layers' sensitivities.
        reformat: Mean cost of a reformat, as a share of the latency.
    """

    network: str
    loss: str
    harm: tuple[float, ...]
    speed: tuple[float, ...]
    tail: float
    reformat: float


#: Of the residual and the mobile one, fewer bits of a weight are free of any gain in latency.
FAMILIES = {
    "residual": Family("residual", "saturating", (0, 1, 0.2, 4, 0.8, 5), (1, 0.5, 1.0, 1.0, 0.55, 0.5), 1.3, 0.004),
    "pyramid": Family("pyramid", "by head", (0, 1.5, 0.3, 3, 1.2, 4), (1, 0.45, 0.9, 0.8, 0.55, 0.4), 1.6, 0.003),
    "attention": Family("attention", "dominant", (0, 2, 0.3, 2, 0.6, 3), (1, 0.5, 0.75, 0.6, 0.5, 0.4), 1.4, 0.002),
    "mobile": Family("mobile", "cliff", (0, 1, 0.4, 6, 1.2, 8), (1, 0.55, 1.0, 1.0, 0.5, 0.45), 1.5, 0.003),
}


@dataclass(frozen=True)
class Instance:
    """One synthetic search.

    Attributes:
        problem: What a sampler may know.
        harm: Of choices and pairs.
        loss: Makes them an accuracy.
        latency: Of each choice as a share of the reference's, shape ``(layers, formats)``.
        reformats: Of each edge likewise, shape ``(edges,)``.
        seed: Of the noise; a scheme's noise never changes.
        correlation: Spearman of the prior against the true effects.
    """

    problem: Problem
    harm: Harm
    loss: Callable[[Harm, Ints], Floats]
    latency: Floats
    reformats: Floats
    seed: int
    correlation: float

    def truth(self, schemes: Ints) -> Floats:
        """Noise-free mAP and latency share, shape ``(schemes, 2)``."""
        latency = _FIXED + self.latency[np.arange(schemes.shape[1]), schemes].sum(axis=1)
        a, b = schemes[:, self.problem.edges[:, 0]], schemes[:, self.problem.edges[:, 1]]
        cost = np.where(DOMAINS[a] != DOMAINS[b], 1.0, BROKEN_FUSION * (a != b))
        return np.stack([REFERENCE_MAP * self.loss(self.harm, schemes), latency + cost @ self.reformats], axis=1)

    def measure(self, scheme: Ints) -> Floats:
        """What a study would measure, shape ``(2,)``."""
        draw = np.random.default_rng([self.seed, *scheme.tolist()])
        found: Floats = self.truth(scheme[None])[0]
        found[0] = float(np.clip(found[0] + draw.normal(0, NOISE[0]), 0.0, 1.0))
        found[1] *= 1 + draw.normal(0, NOISE[1])
        return found


def make_instance(family: str, prior: str, seed: int) -> Instance | synthetic_family.Instance:
    """Builds an instance; of equal family and seed, all priors speak of one truth.

    Args:
        family: Name in `FAMILIES`, or ``blocks``: the family of `synthetic_family`.
        prior: Name in `PRIORS`; ``blocks`` knows no half right ones.
        seed: Of everything.
    """
    if family == "blocks":
        return synthetic_family.make_instance(seed, correlation={"good": 0.8, "poor": 0.3}[prior])
    kind, draw = FAMILIES[family], np.random.default_rng([seed, list(FAMILIES).index(family)])
    network = NETWORKS[kind.network](draw)
    formats = np.array(kind.harm) * np.exp(draw.normal(0, 0.25, len(FORMATS)))
    harm = make_harm(draw, network.fragile, formats, kind.tail, network.blocks, network.heads)
    work = ((1 - _FIXED) * network.macs / network.macs.sum())[:, None]
    layers = len(work)
    latency = work * np.array(kind.speed) * np.exp(draw.normal(0, 0.2, (layers, len(FORMATS))))
    latency[:, 0] = work[:, 0]
    free = np.array(kind.speed) == 1.0
    latency[:, free] = work  # what gains nothing gains it nowhere
    reformats = kind.reformat * (1 + network.sizes) / 2 * np.exp(draw.normal(0, 0.7, len(network.edges)))
    told = PRIORS[prior](np.random.default_rng([seed, list(PRIORS).index(prior), 1]), harm.effects)
    costs = latency * np.exp(draw.normal(0, 0.25, latency.shape))
    costs *= (1 - _FIXED) / costs[:, 0].sum()
    problem = Problem(
        {f"layer{index}": FORMATS for index in range(layers)},
        (
            Target("map_50_95", REFERENCE_MAP, WORST[0]),
            Target("latency_ms", 1.0, WORST[1], costs, _FIXED, 0.008),
        ),
        told,
        network.edges,
        network.sizes,
        DOMAINS,
        network.blocks,
    )
    correlation = rank_correlation(told, harm.effects)
    return Instance(problem, harm, LOSSES[kind.loss], latency, reformats, seed, correlation)
