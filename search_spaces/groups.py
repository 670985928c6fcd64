"""Groups: layers that must share one decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.errors import InputError, nearest
from search_spaces.layers import Layer
from search_spaces.short_names import short_names

GRANULARITIES = ("layer", "module", "stage")


@dataclass(frozen=True)
class Group:
    """Layers that always get the same format; one parameter of the study.

    Attributes:
        name: The layer's name, short, or the module or stage path.
        layers: Names of the layers, in model order.
        key: What a run's identity calls it; empty where that is the name.
    """

    name: str
    layers: tuple[str, ...]
    key: str = ""


def group_layers(layers: Sequence[Layer], granularity: str) -> tuple[Group, ...]:
    """Cuts the quantizable layers into groups, in model order.

    Args:
        layers: Layers of one model.
        granularity: ``layer``, ``module`` or ``stage``.

    Raises:
        InputError: `granularity` is unknown.
    """
    if granularity not in GRANULARITIES:
        raise InputError(
            f"space.granularity: {granularity!r} is not one of {', '.join(GRANULARITIES)}"
            f"{nearest(granularity, GRANULARITIES)}"
        )
    members: dict[str, list[str]] = {}
    for layer in layers:
        if layer.quantizable:
            key = {"layer": layer.name, "module": layer.block, "stage": layer.stage}[granularity]
            members.setdefault(key, []).append(layer.name)
    if granularity != "layer":
        return tuple(Group(name, tuple(names)) for name, names in members.items())
    return tuple(Group(name, (layer,), layer) for name, layer in zip(short_names(list(members)), members, strict=True))
