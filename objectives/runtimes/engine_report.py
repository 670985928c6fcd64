"""An engine read back: what every layer became, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.reading import record_of


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: The engine's name for it: the model nodes that it fuses.
        kind: E.g. ``Convolution``, ``Reformat``, ``PointWise``, ``Myelin``.
        layer: The quantizable model layer that it belongs to; empty where it belongs to none.
        precision: Of its data input: ``int8``, ``fp16``, ``fp32``, ``fp8``, ``int4``, ``bf16``; empty where unknown.
        ms: Median time when profiled layer by layer, milliseconds.
    """

    name: str
    kind: str
    layer: str
    precision: str
    ms: float


@dataclass(frozen=True)
class EngineReport:
    """One engine, read back.

    Attributes:
        layers: In execution order.
        unmet: ``(model layer, asked precision, precision it ran in)`` of the layers that did not get theirs.
        engine_bytes: Size of the plan.
        build_seconds: Time of the build; 0 where the engine came from the cache.
        version: Of what built it.
        folded: Layers whose weights the builder got unpacked.
        method: How the engine was timed: ``cuda graph`` or ``cuda stream``.
        place_spread: Time at the slowest place in memory that was tried / time at the one that was timed.
    """

    layers: tuple[EngineLayer, ...]
    unmet: tuple[tuple[str, str, str], ...]
    engine_bytes: int
    build_seconds: float
    version: str
    folded: tuple[str, ...] = ()
    method: str = ""
    place_spread: float = 1.0

    @property
    def total_ms(self) -> float:
        """Sum of the layers' times, milliseconds."""
        return sum(layer.ms for layer in self.layers)

    @property
    def reformats(self) -> int:
        """Number of layers that only change a tensor's layout or type."""
        return sum(layer.kind == "Reformat" for layer in self.layers)

    @property
    def reformat_ms(self) -> float:
        """Their time, milliseconds."""
        return sum(layer.ms for layer in self.layers if layer.kind == "Reformat")

    @property
    def fp32_islands(self) -> tuple[str, ...]:
        """Engine layers in fp32 with one of lower precision before and after them."""
        low = [index for index, layer in enumerate(self.layers) if layer.precision not in ("", "fp32", "int32")]
        if not low:
            return ()
        inner = self.layers[low[0] : low[-1]]
        return tuple(layer.name for layer in inner if layer.precision == "fp32" and layer.kind != "Reformat")

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> EngineReport:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `data` is something else.
        """
        if "tensorrt" in data:  # as runs of before 2026-11-28 call it
            data = {"version": data["tensorrt"], **{key: value for key, value in data.items() if key != "tensorrt"}}
        return record_of(EngineReport, data, "engine report")
