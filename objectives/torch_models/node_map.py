"""Which torch module is which ONNX layer: matched by name, verified by weights.

A checkpoint and an ONNX file are independent artifacts, whatever their names say. A ranking found on one holds for the
other only where the weights are the same, layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from search_spaces.layers import Layer
from search_spaces.model_graph import ModelGraph

#: Largest difference of two weights, relative to the largest weight, at which they are the same: exporters fold
#: BatchNorm in float32, in another order of operations.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ModuleWeights:
    """The weights of one torch module after folding.

    Attributes:
        name: Dotted module path.
        kind: ``Conv2d``, ``ConvTranspose2d`` or ``Linear``.
        weight: Torch's layout, float32: ``(out, in / groups, *kernel)``, ``(in, out / groups, *kernel)`` or
            ``(out, in)``.
        bias: Shape ``(out,)``; None where there is none.
    """

    name: str
    kind: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


@dataclass(frozen=True)
class NodeMatch:
    """One layer and the module that it was exported from.

    Attributes:
        layer: Name of the ONNX node.
        module: Name of the torch module.
        weight_error: Largest difference of the weights, relative to the largest weight.
        bias_error: The same of the biases; 0 where neither has one.
        renamed: Whether the names differ, so that the weights alone tell.
    """

    layer: str
    module: str
    weight_error: float
    bias_error: float
    renamed: bool


@dataclass(frozen=True)
class NodeMap:
    """The map, and what it leaves out.

    Attributes:
        matches: Verified pairs, in model order.
        explained: ``{layer: reason}`` of layers that are not quantizable and so need no module.
        unmatched: ``{layer: reason}`` of quantizable layers without a module.
        unused: Modules that no layer was exported from.
    """

    matches: tuple[NodeMatch, ...]
    explained: dict[str, str]
    unmatched: dict[str, str]
    unused: tuple[str, ...]

    @property
    def module_of(self) -> dict[str, str]:
        """``{layer: module}``."""
        return {match.layer: match.module for match in self.matches}

    def require_complete(self, checkpoint: str, model: str) -> None:
        """Refuses to carry anything from one artifact to the other unless every quantizable layer is matched.

        Raises:
            InputError: One is not.
        """
        if self.unmatched:
            layer, reason = next(iter(self.unmatched.items()))
            total = len(self.matches) + len(self.unmatched)
            raise InputError(
                f"{checkpoint}: is not what {model} was exported from: {len(self.unmatched)} of {total} quantizable "
                f"layers have no module with the same weights, e.g. {layer} ({reason}); name the checkpoint that it "
                "was exported from, or let the study export it (model.path)"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return {
            "tolerance": TOLERANCE,
            "matches": [asdict(match) for match in self.matches],
            "explained": self.explained,
            "unmatched": self.unmatched,
            "unused_modules": list(self.unused),
        }

    def summary(self) -> str:
        """One line for people."""
        total = len(self.matches) + len(self.unmatched)
        worst = max((max(match.weight_error, match.bias_error) for match in self.matches), default=0.0)
        return (
            f"{len(self.matches)} of {total} quantizable layers matched to torch modules by weights "
            f"(largest relative difference {worst:.1e}), {len(self.explained)} not quantizable, "
            f"{len(self.unused)} modules not in the graph"
        )


def map_nodes(graph: ModelGraph, modules: Sequence[ModuleWeights]) -> NodeMap:
    """Finds the module of every layer: the one of its name if the weights agree, else one whose weights do.

    Where several have these weights, as the copies in a model that was not trained, the one of the nearest name is
    taken; where no module is left, one that another layer has already, for a graph holds a node for each of its uses.

    Args:
        graph: The exported model.
        modules: Of the torch model, BatchNorm folded.
    """
    free = {module.name: module for module in modules}
    matches: list[NodeMatch] = []
    explained: dict[str, str] = {}
    unmatched: dict[str, str] = {}
    wanted = []
    for layer in graph.layers:
        found = free.get(layer.module)
        match = _compare(graph, layer, found) if found is not None and layer.weight in graph.initializers else None
        if match is not None:
            del free[match.module]
        if layer.reason is not None:
            explained[layer.name] = layer.reason
        elif match is not None:
            matches.append(match)
        else:
            wanted.append(layer)
    for layer in wanted:
        same = _same(graph, layer, free.values()) or _same(graph, layer, modules)
        if len(same) == 1:
            matches.append(same[0])
            free.pop(same[0].module, None)
        elif same:
            names = ", ".join(match.module for match in same[:3])
            unmatched[layer.name] = f"{len(same)} modules have these weights: {names}"
        else:
            unmatched[layer.name] = _why_not(graph, layer, modules)
    order = {layer.name: index for index, layer in enumerate(graph.layers)}
    matches.sort(key=lambda match: order[match.layer])
    return NodeMap(tuple(matches), explained, unmatched, tuple(free))


def _same(graph: ModelGraph, layer: Layer, modules: Iterable[ModuleWeights]) -> list[NodeMatch]:
    """The modules of a layer's weights; of several those whose name is the nearest."""
    found = [match for module in modules if (match := _compare(graph, layer, module)) is not None]
    likeness = [_likeness(match.module, layer) for match in found]
    return [match for match, value in zip(found, likeness, strict=True) if value == max(likeness)]


def _likeness(module: str, layer: Layer) -> float:
    """How much of a layer's name is that of a module; 0 where it was not exported from within the module's parent.

    Exporters name a node by the modules that it lies in: ``/model.28/decoder/layers.2/attn/Gemm``.
    """
    words, path = module.split("."), layer.name.strip("/").replace("/", ".").split(".")
    rest = iter(path)
    inside = all(word in rest for word in words[:-1])
    return SequenceMatcher(None, words, path, autojunk=False).ratio() if inside else 0.0


def _compare(graph: ModelGraph, layer: Layer, module: ModuleWeights) -> NodeMatch | None:
    """The match of a layer and a module; None where the weights differ."""
    error = _weight_error(graph, layer, module)
    if error is None or error > TOLERANCE:
        return None
    bias_error = _relative(_bias(graph, layer), module.bias)
    if bias_error is None or bias_error > TOLERANCE:
        return None
    return NodeMatch(layer.name, module.name, error, bias_error, module.name != layer.module)


def _weight_error(graph: ModelGraph, layer: Layer, module: ModuleWeights) -> float | None:
    weight = module.weight
    if module.kind == "Linear" and layer.op in ("MatMul", "Gemm") and layer.channel_axis == 1:
        weight = weight.T
    return _relative(np.asarray(graph.initializers[layer.weight], np.float32), weight)


def _bias(graph: ModelGraph, layer: Layer) -> NDArray[np.float32] | None:
    node = graph.producer[layer.output]
    if layer.op == "MatMul":  # its bias is an Add of its own
        readers = graph.consumers.get(layer.output, [])
        names = [name for reader in readers if reader.op_type == "Add" for name in reader.input]
    else:
        names = list(node.input[2:3])
    found = next((graph.initializers[name] for name in names if name in graph.initializers), None)
    return None if found is None else np.asarray(found, np.float32)


def _relative(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float | None:
    """Largest difference over the largest magnitude; None where the shapes differ."""
    if a is None or b is None:
        given = a if a is not None else b
        return 0.0 if given is None or not np.any(given) else None
    if a.shape != b.shape:
        return None
    return float(np.abs(a - b).max(initial=0.0) / max(float(np.abs(a).max(initial=0.0)), 1e-12))


def _why_not(graph: ModelGraph, layer: Layer, modules: Sequence[ModuleWeights]) -> str:
    errors = [(error, m.name) for m in modules if (error := _weight_error(graph, layer, m)) is not None]
    if not errors:
        return f"no module has a weight of shape {'x'.join(map(str, layer.weight_shape))}"
    error, name = min(errors)
    return f"the nearest module, {name}, differs by {error:.1e} of the largest weight, or in its bias"
