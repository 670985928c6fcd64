"""How the harm of single choices becomes the accuracy of a scheme, in the synthetic families: not by one sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.samplers.problem import Floats, Ints

#: Share of the accuracy that a saturating drop can reach.
_SATURATION = 0.55
_NORM = 3.0


@dataclass(frozen=True)
class Harm:
    """Harm of choices and of hidden pairs of choices.

    Attributes:
        effects: Shape ``(layers, formats)``; 0 for the unquantized format.
        pairs: Rows of layer, format, layer, format; shape ``(pairs, 4)``.
        strength: What each pair adds where both are chosen, shape ``(pairs,)``.
        blocks: Module of each layer, shape ``(layers,)``.
        heads: The head that each layer alone feeds; -1 where it feeds all, shape ``(layers,)``.
    """

    effects: Floats
    pairs: Ints
    strength: Floats
    blocks: Ints
    heads: Ints

    def chosen(self, schemes: Ints) -> Floats:
        """Harm of every layer's choice, shape ``(schemes, layers)``."""
        return np.asarray(self.effects[np.arange(len(self.effects)), schemes])

    def together(self, schemes: Ints) -> Floats:
        """What the hidden pairs add, shape ``(schemes,)``."""
        a, f, b, g = self.pairs.T
        return np.asarray(((schemes[:, a] == f) & (schemes[:, b] == g)) @ self.strength)


def saturating(harm: Harm, schemes: Ints) -> Floats:
    """A sum that saturates: the worst layers hide what others do."""
    total = np.maximum(harm.chosen(schemes).sum(axis=1) + harm.together(schemes), 0.0)
    return np.asarray(1 - _SATURATION * -np.expm1(-total / _SATURATION))


def by_head(harm: Harm, schemes: Ints) -> Floats:
    """The mean over heads of what the layers before each leave of it, a product."""
    kept = np.log1p(-np.minimum(harm.chosen(schemes), 0.95))
    shared = kept[:, harm.heads < 0].sum(axis=1) - np.maximum(harm.together(schemes), -0.05)
    own = [shared + kept[:, harm.heads == head].sum(axis=1) for head in range(int(harm.heads.max()) + 1)]
    return np.asarray(np.exp(np.minimum(own, 0.0)).mean(axis=0))


def dominant(harm: Harm, schemes: Ints) -> Floats:
    """In a block the worst layer counts most, and what an early block did to the features all later ones pass on."""
    starts = np.flatnonzero(np.diff(harm.blocks, prepend=-1))
    norms = np.add.reduceat(harm.chosen(schemes) ** _NORM, starts, axis=1) ** (1 / _NORM)
    total = norms.sum(axis=1) + 0.5 * norms[:, : len(starts) // 2].sum(axis=1) * norms.sum(axis=1)
    return np.asarray(np.maximum(1 - np.maximum(total + harm.together(schemes), 0.0), 0.0))


def cliff(harm: Harm, schemes: Ints) -> Floats:
    """Noise power adds up; the detector stands it to a point, and then falls."""
    power = np.maximum(harm.chosen(schemes).sum(axis=1) + harm.together(schemes), 0.0)
    return np.asarray(1 / (1 + (3 * power) ** 1.6))


LOSSES: dict[str, Callable[[Harm, Ints], Floats]] = {
    "saturating": saturating,
    "by head": by_head,
    "dominant": dominant,
    "cliff": cliff,
}


def make_harm(
    draw: np.random.Generator, fragile: Floats, formats: Floats, tail: float, blocks: Ints, heads: Ints
) -> Harm:
    """Heavy-tailed effects with cliffs of single choices, and hidden pairs.

    Args:
        draw: Chance.
        fragile: Factor of each layer, shape ``(layers,)``.
        formats: Factor of each format, 0 for the unquantized one, shape ``(formats,)``.
        tail: Spread of the logarithm of layers.
        blocks: Module of each layer, shape ``(layers,)``.
        heads: As in `Harm`.
    """
    layers, count = len(fragile), len(formats)
    rough = np.exp(draw.normal(0, tail, (layers, 1)) + draw.normal(0, 0.5, (layers, count)))
    effects = rough * fragile[:, None] * formats
    falls = draw.random(effects.shape) < np.where(formats > 2 * formats[1], 0.08, 0.03)
    effects = np.where(falls, effects * 15, effects)
    effects *= 0.2 * np.exp(draw.normal(0, 0.3)) / effects[:, 1].sum()
    near = [(a, b) for a in range(layers) for b in range(a + 1, min(layers, a + 6)) if blocks[a] == blocks[b]]
    far = [tuple(draw.choice(layers, 2, replace=False)) for _ in range(120)]
    chosen = np.array([near[int(i)] for i in draw.integers(0, len(near), 250)] + far)
    pairs = np.stack(
        [
            chosen[:, 0],
            draw.integers(1, count, len(chosen)),
            chosen[:, 1],
            draw.integers(1, count, len(chosen)),
        ],
        axis=1,
    )
    strength = draw.normal(0.1, 0.6, len(pairs)) * np.sqrt(
        effects[pairs[:, 0], pairs[:, 1]] * effects[pairs[:, 2], pairs[:, 3]]
    )
    return Harm(effects, pairs, strength, blocks, heads)
