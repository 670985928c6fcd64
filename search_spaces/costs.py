"""CostTable: what each (layer, format) is expected to cost on the target, before anything was searched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import FiniteFloat

from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS
from search_spaces.layers import Layer
from search_spaces.reading import parse_json, record_of


@dataclass(frozen=True)
class CostTable:
    """Additive costs of one scheme.

    Attributes:
        unit: ``ms`` or ``bytes``.
        costs: ``{(layer, format): cost}``.
        source: Where the figures come from, e.g. ``profile`` or ``macs``.
        fixed: Cost of everything that no choice changes.
        whole: Cost of the unquantized model as its own scores have it; None where only the table's sum is comparable.
    """

    unit: str
    costs: Mapping[tuple[str, str], float]
    source: str
    fixed: float = 0.0
    whole: float | None = None

    def to_json(self) -> str:
        """Returns JSON text."""
        costs = [[layer, fmt, cost] for (layer, fmt), cost in self.costs.items()]
        head = {"unit": self.unit, "source": self.source, "fixed": self.fixed, "whole": self.whole}
        return json.dumps({**head, "costs": costs})

    @staticmethod
    def from_json(text: str) -> CostTable:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The text is not such a table.
        """
        name, remedy = "cost table", "delete the file to estimate again"
        kept = record_of(_Kept, parse_json(text, name, remedy), name, remedy)
        costs = {(layer, fmt): cost for layer, fmt, cost in kept.costs}
        return CostTable(kept.unit, costs, kept.source, kept.fixed, kept.whole)

    def cost(self, layer: str, fmt: str) -> float:
        """Cost of one layer in one format; 0 where unknown."""
        return self.costs.get((layer, fmt), 0.0)

    def total(self, allocation: Allocation) -> float:
        """Cost of a scheme."""
        return self.fixed + sum(self.cost(layer, fmt) for layer, fmt in allocation.items)


@dataclass(frozen=True)
class _Kept:
    """A `CostTable` as its file holds it: JSON has no pairs for keys."""

    unit: str
    source: str
    fixed: FiniteFloat
    costs: list[tuple[str, str, FiniteFloat]]
    whole: FiniteFloat | None = None


def weight_costs(layers: Sequence[Layer]) -> CostTable:
    """Weight bytes of each layer by format, scales left out (they add 1 to 25 %)."""
    costs = {
        (layer.name, name): layer.parameters * fmt.weight.bits / 8
        for layer in layers
        if layer.quantizable
        for name, fmt in FORMATS.items()
    }
    return CostTable("bytes", costs, "parameters")
