"""Which member of a front is the best for a stated budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """What a user can afford; None where it does not matter.

    Attributes:
        max_drop: Points of the accuracy (hundredths) lost against the reference.
        max_latency_ms: Milliseconds in the study's scale.
        max_weight_mib: MiB of weights.
    """

    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_weight_mib: float | None = None

    @property
    def stated(self) -> bool:
        """Whether anything is bounded."""
        return any(value is not None for value in (self.max_drop, self.max_latency_ms, self.max_weight_mib))

    def within(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the front (of `tuner.results.front_files.row`) that keep the budget, by the latest figures."""
        kept = []
        for entry in rows:
            values = (100 * entry["drop"], latency_of(entry), entry["weight_bytes"] / 2**20)
            bounds = (self.max_drop, self.max_latency_ms, self.max_weight_mib)
            if all(b is None or v <= b + 1e-9 for v, b in zip(values, bounds, strict=True)):
                kept.append(entry)
        return kept

    def best(self, rows: Sequence[dict[str, Any]]) -> int | None:
        """Trial of the best row: the cheapest where only the loss is bounded, else the most accurate."""
        kept = self.within(rows)
        if not kept or not self.stated:
            return None
        costly = self.max_latency_ms is not None or self.max_weight_mib is not None
        chosen = min(kept, key=lambda entry: entry["drop"]) if costly else kept[0]
        return int(chosen["trial"])


def latency_of(entry: Mapping[str, Any]) -> float:
    """Latency of a row of the front, milliseconds: as measured again where it was."""
    again = entry["rescored"]
    return float(again["latency_ms"] if again and again["latency_ms"] is not None else entry["latency_ms"])
