"""Blocks hold every node once, in order, and what runs block by block is what runs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from objectives.refinement.blocks import split_blocks  # noqa: E402
from objectives.refinement.executor import Executor  # noqa: E402
from objectives.refinement.refine import last_tensors  # noqa: E402

if TYPE_CHECKING:
    from conftest import Scene


@pytest.mark.parametrize("most", [1, 3, 8, 1000])
def test_blocks_are_the_model(scene: Scene, most: int) -> None:
    executor = Executor(scene.graph, "cpu")
    last, image = last_tensors(scene.graph), scene.graph.input
    nodes = executor.nodes(last, [image])
    layers = [layer.name for layer in scene.graph.quantizable]
    blocks = split_blocks(nodes, image, last, layers, most)
    assert [node for block in blocks for node in block.nodes] == nodes
    assert [name for block in blocks for name in block.layers] == [n.name for n in nodes if n.name in set(layers)]
    assert all(len(block.layers) <= most for block in blocks)
    assert len(blocks) == 1 if most == 1000 else len(blocks) > 1

    pixels = torch.from_numpy(scene.images.batch(0, 2))
    known = {image: pixels}
    for block in blocks:
        assert set(block.inputs) <= set(known), "a block reads only what earlier ones left"
        known |= executor.run(block.nodes, {name: known[name] for name in block.inputs}, block.outputs)
    whole = executor.run(nodes, {image: pixels}, last)
    for name in last:
        torch.testing.assert_close(known[name], whole[name], rtol=0, atol=0)


def test_a_place_where_fewer_tensors_are_alive_is_preferred(scene: Scene) -> None:
    """A cut inside a residual branch would leave two tensors to reconstruct where one is enough."""
    executor = Executor(scene.graph, "cpu")
    last, image = last_tensors(scene.graph), scene.graph.input
    layers = [layer.name for layer in scene.graph.quantizable]
    blocks = split_blocks(executor.nodes(last, [image]), image, last, layers, 4)
    assert len(blocks[0].outputs) == 1
