"""Layer graphs of the synthetic families: residual stages, a pyramid with heads, attention blocks, a mobile chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.samplers.problem import Floats, Ints

LAYERS = 100
HEADS = 3


@dataclass(frozen=True)
class Network:
    """A network as far as a search sees it.

    Attributes:
        edges: Pairs of neighbouring layers, shape ``(edges, 2)``.
        sizes: Elements that cross each edge, relative to their mean, shape ``(edges,)``.
        blocks: Module of each layer, shape ``(layers,)``.
        macs: Work of each layer, any unit, shape ``(layers,)``.
        heads: The head that each layer alone feeds; -1 where it feeds all, shape ``(layers,)``.
        fragile: Factor of each layer's sensitivity that its kind explains, shape ``(layers,)``.
    """

    edges: Ints
    sizes: Floats
    blocks: Ints
    macs: Floats
    heads: Ints
    fragile: Floats


def residual(draw: np.random.Generator) -> Network:
    """Stages of residual blocks of two or three convolutions, and a few long skips between stages."""
    edges, blocks, start, block = [(i, i + 1) for i in range(LAYERS - 1)], [0] * LAYERS, 1, 1
    while start < LAYERS:
        end = min(LAYERS, start + int(draw.integers(2, 4)))
        blocks[start:end] = [block] * (end - start)
        if end < LAYERS:
            edges.append((start - 1, end))
        start, block = end, block + 1
    for source in draw.choice(LAYERS - 40, 5, replace=False):
        edges.append((int(source), int(source) + int(draw.integers(20, 40))))
    return _network(draw, edges, np.array(blocks))


def pyramid(draw: np.random.Generator) -> Network:
    """A backbone, a feature pyramid that goes up and down again, and three heads of two branches each."""
    edges = [(i, i + 1) for i in range(51)]
    blocks = [i // 5 for i in range(52)]
    heads = [-1] * LAYERS
    taps, neck = (24, 38, 51), list(range(52, 70))
    edges += [(51, 52), *((a, a + 1) for a in neck[:-1]), (taps[1], 55), (taps[0], 58), (55, 64), (52, 67)]
    blocks += [11 + i // 3 for i in range(18)]
    for head, source in enumerate((61, 65, 69)):
        first = 70 + 10 * head
        for branch in (first, first + 5):
            edges += [(source, branch), *((a, a + 1) for a in range(branch, branch + 4))]
        heads[first : first + 10] = [head] * 10
        blocks += [17 + 2 * head] * 5 + [18 + 2 * head] * 5
    fragile = np.ones(LAYERS)
    fragile[[74 + 5 * i for i in range(6)]] = 6.0  # the last layer of a branch is what the figures are read from
    return _network(draw, edges, np.array(blocks), np.array(heads), fragile)


def attention(draw: np.random.Generator) -> Network:
    """A stem of four convolutions and sixteen blocks of query, key, value, projection and two linear layers."""
    edges, blocks = [(i, i + 1) for i in range(3)], [0] * 4
    fragile = np.ones(LAYERS)
    for block in range(16):
        q = 4 + 6 * block
        before = q - 1
        edges += [(before, q), (before, q + 1), (before, q + 2), (q, q + 3), (q + 1, q + 3), (q + 2, q + 3)]
        edges += [(q + 3, q + 4), (q + 4, q + 5), (before, q + 4)]
        blocks += [1 + block] * 6
        fragile[[q, q + 1, q + 5]] = (0.4, 0.4, 3.0)
    return _network(draw, edges, np.array(blocks), fragile=fragile)


def mobile(draw: np.random.Generator) -> Network:
    """A chain of expansion, depthwise and projection; the depthwise ones are small and fragile."""
    kind = np.arange(LAYERS) % 3
    edges = [(i, i + 1) for i in range(LAYERS - 1)] + [(i, i + 3) for i in range(2, LAYERS - 3, 6)]
    return _network(
        draw, edges, np.arange(LAYERS) // 3, fragile=np.where(kind == 1, 4.0, 1.0), work=np.where(kind == 1, 0.15, 1.0)
    )


def _network(
    draw: np.random.Generator,
    edges: list[tuple[int, int]],
    blocks: Ints,
    heads: Ints | None = None,
    fragile: Floats | None = None,
    work: Floats | None = None,
) -> Network:
    unique = np.array(sorted(set(edges)), dtype=np.int64)
    depth = unique[:, 0] / LAYERS
    sizes = 4.0 ** (-3 * depth) * np.exp(draw.normal(0, 0.4, len(unique)))  # maps shrink with depth
    macs = np.exp(draw.normal(0, 0.8, LAYERS)) * (1.0 if work is None else work)
    return Network(
        unique,
        sizes / sizes.mean(),
        blocks,
        macs,
        np.full(LAYERS, -1) if heads is None else heads,
        np.ones(LAYERS) if fragile is None else fragile,
    )


NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "residual": residual,
    "pyramid": pyramid,
    "attention": attention,
    "mobile": mobile,
}
