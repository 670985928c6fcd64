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
        reason: Why the largest of the other weights cannot be quantized, with its node; empty where there is none.
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
        left = _left(graph)
        largest = max(left, key=left.__getitem__, default="")
        if not graph.quantizable:
            why = f", e.g. {largest}" if largest else ""
            raise InputError(f"{graph.path}: has no layer that can be quantized; `tuner layers` says why{why}")
        held = sum(layer.parameters for layer in graph.quantizable)
        return Coverage(len(graph.quantizable), len(weighted), held / (held + sum(left.values())), largest)

    @property
    def warning(self) -> str:
        """A line where less than half of the weights can be quantized; else empty."""
        if self.share >= _LITTLE:
            return ""
        return (
            f"only {self.quantizable} of {self.layers} layers can be quantized, {self.share:.0%} of the weights; "
            f"`tuner layers` says why, e.g. {self.reason}"
        )


def _left(graph: ModelGraph) -> dict[str, int]:
    """``{node and why it cannot be quantized: elements of its weight}``; biases and other vectors are not counted."""
    refused = {layer.name: layer for layer in graph.layers if not layer.quantizable}
    left = {f"{x.name!r}: {x.reason}": x.parameters for x in refused.values() if x.parameters and not x.weight}
    quantized = {layer.weight for layer in graph.quantizable}
    for name, array in graph.initializers.items():
        readers = graph.consumers.get(name, [])
        if name in quantized or array.ndim < 2 or array.dtype.kind != "f" or not readers:
            continue
        layer = next((refused[node.name] for node in readers if node.name in refused), None)
        reason = layer.reason if layer is not None else f"{readers[0].op_type} is no layer that can be"
        key = f"{(layer or readers[0]).name!r}: {reason}"
        left[key] = left.get(key, 0) + array.size
    return left
