"""Cuts a model into blocks that are reconstructed one after another.

A block is a run of nodes between two places where few tensors are alive, which is where stages of a network meet.
Source of the unit: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from objectives.refinement.executor import Node


@dataclass(frozen=True)
class Block:
    """Nodes that follow each other.

    Attributes:
        nodes: In order.
        inputs: Tensors that they read and do not make, constants aside.
        outputs: Tensors that they make and something after them reads, or that are wanted.
        layers: Names of the quantized layers among them.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]


def split_blocks(
    nodes: Sequence[Node], image: str, wanted: Sequence[str], layers: Sequence[str], most: int
) -> list[Block]:
    """Splits nodes into blocks.

    Args:
        nodes: All that compute `wanted` from `image`, in order.
        image: Name of the model's input.
        wanted: Tensors that must come out at the end.
        layers: Names of the layers that are quantized.
        most: Layers of a block, where its model has a place to cut before that; a layer more is no harm.

    Returns:
        The blocks, in order; together they hold all nodes.
    """
    quantized = set(layers)
    last: dict[str, int] = {name: len(nodes) for name in wanted}
    for place, node in enumerate(nodes):
        for name in node.inputs:
            last[name] = max(last.get(name, place), place)
    made = {image} | {name for node in nodes for name in node.outputs}
    blocks: list[Block] = []
    begin = 0
    while begin < len(nodes):
        best, fewest, count = len(nodes), None, 0
        alive = {name for node in nodes[:begin] for name in node.outputs if last.get(name, -1) >= begin}
        for place in range(begin, len(nodes)):
            node = nodes[place]
            count += node.name in quantized
            if count > most:
                break
            alive.update(name for name in node.outputs if last.get(name, -1) > place)
            alive = {name for name in alive if last[name] > place}
            if count and (fewest is None or len(alive) <= fewest):
                best, fewest = place + 1, len(alive)
        else:
            best = len(nodes)
        part = tuple(nodes[begin:best])
        inside = {name for node in part for name in node.outputs}
        read = dict.fromkeys(name for node in part for name in node.inputs if name in made - inside)
        left = tuple(name for node in part for name in node.outputs if last.get(name, -1) >= best)
        blocks.append(Block(part, tuple(read), left, tuple(n.name for n in part if n.name in quantized)))
        begin = best
    return blocks
