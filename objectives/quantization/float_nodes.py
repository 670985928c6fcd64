"""The nodes of an fp16 graph that stay float32, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SAID = 4  # tensors that a line names


@dataclass(frozen=True)
class FloatNode:
    """A node that stays float32.

    Attributes:
        node: Its name in the model.
        tensor: The tensor, constant or attribute for whose sake.
        reason: Why fp16 cannot hold that, a predicate of `tensor`.
    """

    node: str
    tensor: str
    reason: str


@dataclass(frozen=True)
class FullPrecision:
    """The nodes that stay float32, and what was looked at.

    Attributes:
        nodes: In the model's order.
        tensors: ``{tensor: reason}`` of those that must not be fp16 anywhere.
        missing: What was not looked at for want of measurements; empty where nothing is missing.
    """

    nodes: tuple[FloatNode, ...] = ()
    tensors: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""

    def lines(self) -> list[str]:
        """What a terminal says: one line for the nodes, by reason, and one for what was not looked at."""
        found: dict[tuple[str, str], list[str]] = {}
        for entry in self.nodes:
            found.setdefault((entry.tensor, entry.reason), []).append(entry.node)
        said = [f"{', '.join(nodes)}: {tensor!r} {reason}" for (tensor, reason), nodes in found.items()]
        if len(said) > _SAID:
            said[_SAID:] = [f"and {len(said) - _SAID} more tensors (--json names all)"]
        lines = [f"fp16 cannot hold all: {len(self.nodes)} nodes stay in fp32: {'; '.join(said)}"] if said else []
        return [*lines, *([f"not looked at for fp16: {self.missing}"] if self.missing else [])]

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object of the nodes and of what was not looked at."""
        return {"nodes": [vars(entry) for entry in self.nodes], "missing": self.missing}

    @property
    def names(self) -> frozenset[str]:
        """Names of the nodes."""
        return frozenset(entry.node for entry in self.nodes)
