"""Seeded synthetic searches: layers in blocks with effects that add up, and all that a sum of effects misses.

Truth of a scheme: its loss is a sum of one effect per (layer, format), of interactions between layers of one block, and
of hidden pairs of (layer, format) anywhere in the model; its latency a sum of choices and of reformats along the edges.
The prior that a sampler sees is the true effects under noise of a wanted rank correlation. All follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from search_spaces.groups import Group
from search_spaces.space import SearchSpace
from tuner.samplers.problem import Problem, Target

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FORMATS = ("fp16", "int8", "w8a16", "w4a16", "fp8", "w4a8")
_HARM = np.array([0.0, 1.0, 0.3, 4.0, 0.7, 5.0])
_SPEED = np.array([1.0, 0.45, 0.9, 0.75, 0.55, 0.4])
_BITS = np.array([16.0, 8.0, 8.0, 4.25, 8.0, 4.25])
_DOMAIN = np.array([0, 1, 0, 0, 2, 2])
REFERENCE_MAP = 0.5
#: A scheme counts where it keeps half of the accuracy at less than 1.1 times the costs.
WORST = (0.5 * REFERENCE_MAP, 1.1, 1.1)


@dataclass(frozen=True)
class Instance:
    """One synthetic search.

    Attributes:
        problem: What a sampler may know.
        linear: Loss, latency and size of each choice, shape ``(objectives, layers * formats)``.
        pairs: Symmetric pair terms of the loss and of the latency, shape ``(2, layers * formats, layers * formats)``.
        reformats: Latency of a reformat on each edge, shape ``(edges,)``.
        noise: Standard deviations of a measured mAP and of a measured latency share.
        seed: Of the noise; a scheme's noise never changes.
        correlation: Spearman of the prior against the true effects.
    """

    problem: Problem
    linear: Floats
    pairs: Floats
    reformats: Floats
    noise: tuple[float, float]
    seed: int
    correlation: float

    def truth(self, schemes: Ints) -> Floats:
        """Noise-free mAP and cost shares, shape ``(schemes, objectives)``."""
        onehot = self.onehot(schemes)
        loss = onehot @ self.linear[0] + 0.5 * np.einsum("ij,ij->i", onehot @ self.pairs[0], onehot)
        latency = onehot @ self.linear[1] + 0.5 * np.einsum("ij,ij->i", onehot @ self.pairs[1], onehot)
        columns = [REFERENCE_MAP * np.exp(-np.maximum(loss, 0.0)), latency]
        if len(self.problem.objectives) == 3:
            columns.append(onehot @ self.linear[2])
        return np.stack(columns, axis=1)

    def measure(self, scheme: Ints) -> Floats:
        """What a study would measure, shape ``(objectives,)``."""
        draw = np.random.default_rng([self.seed, *scheme.tolist()])
        found = self.truth(scheme[None])[0]
        found[0] = float(np.clip(found[0] + draw.normal(0, self.noise[0]), 0.0, 1.0))
        found[1] *= 1 + draw.normal(0, self.noise[1])
        return found

    def onehot(self, schemes: Ints) -> Floats:
        """Choices as 0 and 1, shape ``(schemes, layers * formats)``."""
        return np.eye(len(FORMATS))[schemes].reshape(len(schemes), -1)


def make_instance(seed: int, layers: int = 100, correlation: float = 0.8, objectives: int = 2) -> Instance:
    """Builds an instance.

    Args:
        seed: Of everything.
        layers: Number of layers.
        correlation: Spearman of the prior against the true effects, layer by layer within a format.
        objectives: 2, or 3 with the size.
    """
    draw = np.random.default_rng(seed)
    formats = len(FORMATS)
    names = tuple(f"layer{index}" for index in range(layers))
    blocks = np.repeat(np.arange(layers), draw.integers(3, 8, layers))[:layers]
    harm = np.exp(draw.normal(0, 1.2, (layers, 1)) + draw.normal(0, 0.5, (layers, formats))) * _HARM
    effects = 0.09 * harm / harm[:, 1].sum()  # int8 everywhere loses a twelfth of the accuracy, W4 a third
    macs = np.exp(draw.normal(0, 0.9, layers))
    latency = (0.85 * macs / macs.sum())[:, None] * _SPEED * np.exp(draw.normal(0, 0.25, (layers, formats)))
    latency[:, 0] = 0.85 * macs / macs.sum()
    weights = np.exp(draw.normal(0, 1.2, layers))
    size = (weights / weights.sum())[:, None] * _BITS / 16
    edges = _edges(draw, layers)
    sizes = np.exp(draw.normal(0, 0.7, len(edges)))
    sizes /= sizes.mean()
    reformats = 0.0015 * (1 + sizes) * np.exp(draw.normal(0, 0.8, len(edges)))
    pairs = np.stack([_interactions(draw, effects, blocks), _reformat_pairs(edges, reformats, layers)])
    prior, found = _prior(draw, effects, correlation)
    parameters = dict.fromkeys(names, FORMATS)
    costs = latency * np.exp(draw.normal(0, 0.25, latency.shape))
    problem = Problem(
        parameters,
        (
            Target("map_50_95", REFERENCE_MAP, WORST[0]),
            Target("latency_ms", 1.0, WORST[1], costs * 0.85 / costs[:, 0].sum(), 0.15, 0.008),
            Target("weight_mib", 1.0, WORST[2], size, exact=True),
        )[:objectives],
        prior,
        edges,
        sizes,
        _DOMAIN,
        blocks,
    )
    latency[0] += 0.15  # what no choice changes; layer 0 carries it
    linear = np.stack([effects.ravel(), latency.ravel(), size.ravel()])
    return Instance(problem, linear, pairs, reformats, (0.0025, 0.005), seed, found)


def space_of(problem: Problem) -> SearchSpace:
    """The search space of a problem whose groups are single layers."""
    names = tuple(problem.parameters)
    return SearchSpace(tuple(Group(name, (name,)) for name in names), tuple(problem.parameters.values()), names)


def _edges(draw: np.random.Generator, layers: int) -> Ints:
    chain = [(index, index + 1) for index in range(layers - 1)]
    skips = [(i, i + int(draw.integers(2, 9))) for i in range(layers) if draw.random() < 0.3]
    return np.array(chain + [(a, b) for a, b in skips if b < layers], dtype=np.int64)


def _interactions(draw: np.random.Generator, effects: Floats, blocks: Ints) -> Floats:
    """Pair terms of the loss: between quantized layers of one block, and 200 hidden pairs of choices."""
    layers, formats = effects.shape
    found = np.zeros((layers, formats, layers, formats))
    for a in range(layers):
        for b in range(a + 1, layers):
            if blocks[a] == blocks[b]:
                strength = draw.normal(0.05, 0.2) * np.sqrt(effects[a][:, None] * effects[b][None])
                found[a, :, b, :] += strength
    for _ in range(200):
        a, b = draw.choice(layers, 2, replace=False)
        f, g = draw.integers(1, formats, 2)
        found[a, f, b, g] += draw.normal(0, 0.7) * np.sqrt(effects[a, f] * effects[b, g])
    square = found.reshape(layers * formats, -1)
    return np.asarray(square + square.T)


def _reformat_pairs(edges: Ints, reformats: Floats, layers: int) -> Floats:
    formats = len(FORMATS)
    differs = (_DOMAIN[:, None] != _DOMAIN[None]).astype(np.float64)
    found = np.zeros((layers, formats, layers, formats))
    for (a, b), cost in zip(edges, reformats, strict=True):
        found[a, :, b, :] += differs * cost
    square = found.reshape(layers * formats, -1)
    return np.asarray(square + square.T)


def _prior(draw: np.random.Generator, effects: Floats, correlation: float) -> tuple[Floats, float]:
    """True effects under log-normal noise whose strength gives the wanted rank correlation; any unit."""
    noise = draw.normal(0, 1.0, effects.shape)
    layer_noise = draw.normal(0, 1.0, (len(effects), 1))
    mixed = (noise + layer_noise) / np.sqrt(2)
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        prior = np.where(effects > 0, effects * np.exp(middle * mixed), 0.0)
        found = float(np.mean([spearmanr(prior[:, f], effects[:, f])[0] for f in range(1, effects.shape[1])]))
        low, high = (middle, high) if found > correlation else (low, middle)
    # Sensitivities of different formats are not in one unit: a divergence weighs rounding and clipping unlike the mAP.
    return prior * np.exp(draw.normal(0, 0.5, effects.shape[1])), found
