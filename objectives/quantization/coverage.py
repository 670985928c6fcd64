"""How much of a model can be quantized: a file in which little is must not pass without a word."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

_LITTLE = 0.5


@dataclass(frozen=True)
class Coverage:
    """What of a model's weights can be quantized.

    Attributes:
        quantizable: Layers whose weight can be.
        layers: All layers with a weight.
        share: Of the elements of all weights, those of quantizable layers; 0 to 1.
        reason: Why the largest of the other layers cannot be quantized, with its name; empty where there is none.
    """

    quantizable: int
    layers: int
    share: float
    reason: str

    @staticmethod
    def of(graph: ModelGraph) -> Coverage:
        """Counts the layers of a model.

        Raises:
            InputError: None can be quantized.
        """
        weighted = [layer for layer in graph.layers if layer.parameters]
        refused = max((x for x in weighted if not x.quantizable), key=lambda x: x.parameters, default=None)
        reason = f"{refused.name!r}: {refused.reason}" if refused is not None else ""
        if not graph.quantizable:
            why = f", e.g. {reason}" if reason else ""
            raise InputError(f"{graph.path}: has no layer that can be quantized; `tuner layers` says why{why}")
        held = sum(layer.parameters for layer in graph.quantizable)
        return Coverage(
            len(graph.quantizable), len(weighted), held / sum(layer.parameters for layer in weighted), reason
        )

    @property
    def warning(self) -> str:
        """A line where less than half of the weights can be quantized; else empty."""
        if self.share >= _LITTLE:
            return ""
        return (
            f"only {self.quantizable} of {self.layers} layers can be quantized, {self.share:.0%} of the weights; "
            f"`tuner layers` says why, e.g. {self.reason}"
        )
