"""Names under which a group of layers is found again: by its shapes on a device, by its names in a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.groups import Group
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class GroupKeys:
    """How the groups of a space are called.

    Attributes:
        shapes: What decides a group's speed: operators and shapes of its layers.
        kinds: Coarser: operators and kernels.
        names: The layers themselves, for other studies of the same model.
    """

    shapes: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(graph: ModelGraph, space: SearchSpace) -> GroupKeys:
        """Reads them off the model."""
        layers = {layer.name: layer for layer in graph.layers}
        return GroupKeys(
            tuple(" + ".join(map(_shape, _members(group, layers))) for group in space.groups),
            tuple(" + ".join(sorted({_kind(layer) for layer in _members(group, layers)})) for group in space.groups),
            tuple(", ".join(group.layers) for group in space.groups),
        )

    def edge(self, source: int, target: int) -> str:
        """Of an edge between two groups, by their numbers."""
        return f"{self.shapes[source]} -> {self.shapes[target]}"


def _members(group: Group, layers: Mapping[str, Layer]) -> list[Layer]:
    return [layers[name] for name in group.layers]


def _shape(layer: Layer) -> str:
    sizes = "x".join(map(str, layer.weight_shape))
    ends = "x".join(map(str, layer.input_shape)) + " > " + "x".join(map(str, layer.output_shape))
    return f"{layer.op} {sizes} groups {layer.groups} {ends}"


def _kind(layer: Layer) -> str:
    if layer.depthwise:
        return f"{layer.op} depthwise"
    kernel = "x".join(map(str, layer.weight_shape[2:]))
    return f"{layer.op} {kernel}".strip()
