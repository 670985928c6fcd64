"""Probing: which (layer, format) pairs the target builds at all, and what they cost, before the search begins.

One engine per format tells both: each layer's time is read from its profile in the context in which it will run. The
same engine tells which layers do not run in what they were given, for want of a kernel; where that gains hardly any
time either the pair is idle: noise and conversions for nothing.

A build that fails names the layer that stopped it; that pair is blocked, the layer falls back to fp16, and the build is
tried again. Where the log names no layer the set is halved until the culprits are alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from objectives.runtimes.engine_report import EngineReport
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.formats import FORMATS, UNQUANTIZED
from search_spaces.reading import parse_json, record_of
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Unsupported

#: Engines that one format's probe may build before its remaining layers are blocked as a whole.
MAX_BUILDS = 40
#: A layer that does not run in its format must still take less than this share of its fp16 time to keep it.
_GAIN = 0.9


@dataclass(frozen=True)
class LayerCosts:
    """Profile of one engine.

    Attributes:
        milliseconds: ``{model layer: ms}``; operators that are no layer count for the layer above them.
        fixed_ms: Time that belongs to no layer.
        device: The GPU.
        version: TensorRT's.
        unmet: ``{model layer: number format it ran in}`` of those that did not run in what was asked for.
    """

    milliseconds: Mapping[str, float]
    fixed_ms: float
    device: str
    version: str
    unmet: Mapping[str, str] = field(default_factory=dict)


def layer_costs(report: EngineReport, device: str) -> LayerCosts:
    """Sums an engine's layers by the model layer that they belong to.

    Args:
        report: The engine.
        device: Its name.
    """
    times: dict[str, float] = {}
    for layer in report.layers:
        times[layer.layer] = times.get(layer.layer, 0.0) + layer.ms
    fixed = times.pop("", 0.0)
    return LayerCosts(times, fixed, device, report.version, {layer: ran for layer, _, ran in report.unmet})


@dataclass(frozen=True)
class ProbeTable:
    """What probing found, for one model on one device and TensorRT version.

    Attributes:
        device: The GPU.
        version: TensorRT's.
        costs: ``{(layer, format): milliseconds}``; every layer of every probed format.
        fixed_ms: Time that belongs to no layer, milliseconds.
        blocked: Pairs that cannot be built.
        builds: Engines that were built or tried.
        idle: Pairs that are built but run in another number format, and less than a tenth faster than fp16.
    """

    device: str
    version: str
    costs: Mapping[tuple[str, str], float]
    fixed_ms: float
    blocked: Unsupported = field(default_factory=lambda: Unsupported({}))
    builds: int = 0
    idle: Unsupported = field(default_factory=lambda: Unsupported({}))

    def cost_table(self, runtime: str) -> CostTable:
        """The latency prior of the search; `runtime` is its title."""
        return CostTable("ms", self.costs, f"{runtime} {self.version} profile on {self.device}", self.fixed_ms)

    def kept_out(self, space: SearchSpace, size: bool) -> Unsupported:
        """Pairs that a search of that space need not try.

        Args:
            space: Groups and formats. An idle pair stays where other layers share the choice, or where fp16 is none.
            size: Whether the study minds the size of weights; then idle pairs stay, as they may still save bytes.
        """
        if size:
            return self.blocked
        own = {
            group.layers[0]
            for group, formats in zip(space.groups, space.formats, strict=True)
            if len(group.layers) == 1 and UNQUANTIZED in formats
        }
        return self.blocked.union(Unsupported({pair: why for pair, why in self.idle.pairs.items() if pair[0] in own}))

    def to_json(self) -> str:
        """Returns JSON text."""
        costs = [[layer, fmt, ms] for (layer, fmt), ms in self.costs.items()]
        found = {"device": self.device, "version": self.version, "costs": costs, "fixed_ms": self.fixed_ms}
        pairs = {"blocked": json.loads(self.blocked.to_json()), "idle": json.loads(self.idle.to_json())}
        return json.dumps({**found, **pairs, "builds": self.builds})

    @staticmethod
    def from_json(text: str) -> ProbeTable:
        """Reads what `to_json` wrote."""
        name = "probe table"
        kept = record_of(_Kept, parse_json(text, name, "delete it to probe again"), name, "delete it to probe again")
        costs = {(layer, fmt): ms for layer, fmt, ms in kept.costs}
        blocked, idle = (
            Unsupported({(layer, fmt): reason for layer, fmt, reason in pairs}) for pairs in (kept.blocked, kept.idle)
        )
        return ProbeTable(kept.device, kept.version, costs, kept.fixed_ms, blocked, kept.builds, idle)


@dataclass(frozen=True)
class _Kept:
    """A `ProbeTable` as its file holds it: JSON has no pairs for keys."""

    device: str
    version: str
    costs: list[tuple[str, str, float]]
    fixed_ms: float
    blocked: list[tuple[str, str, str]]
    builds: int
    idle: list[tuple[str, str, str]] = field(default_factory=list)  # runs of before 2026-11-26 have none


class Profiler(Protocol):
    """Builds one scheme and profiles it."""

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        """Profile of the scheme's engine, or why it has none."""


class ProbeFailedError(RuntimeError):
    """Not even the unquantized model can be built."""


def probe(
    profiler: Profiler,
    layers: Sequence[str],
    wanted: Mapping[str, Sequence[str]],
    say: Callable[[str], None] = lambda _: None,
    spared: Mapping[tuple[str, str], str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ProbeTable:
    """Builds the model in each format.

    Args:
        profiler: Builds and profiles.
        layers: All quantizable layers.
        wanted: ``{format: layers that may take it}``; a format without kernels of its own costs what fp16 costs and
            is not built.
        say: Told of every pair that is blocked or idle.
        spared: Pairs that are blocked untried, and why.
        progress: Told how many formats are done.

    Raises:
        ProbeFailedError: Not even the unquantized model can be built.
    """
    base = profiler.costs(Allocation.uniform(layers, UNQUANTIZED))
    if isinstance(base, Failure):
        raise ProbeFailedError(f"the unquantized model cannot be built ({base.kind}): {base.message}")
    costs: dict[tuple[str, str], float] = {}
    blocked = {(layer, name): why for (layer, name), why in (spared or {}).items() if layer in wanted.get(name, ())}
    for (layer, name), why in blocked.items():
        say(f"{layer}: {name} is not tried here, stays {UNQUANTIZED} ({why})")
    idle: dict[tuple[str, str], str] = {}
    builds = 1
    for number, name in enumerate(dict.fromkeys([UNQUANTIZED, *wanted])):
        found = base
        if FORMATS[name].quantizes_activation:
            tried = [layer for layer in wanted[name] if (layer, name) not in blocked]
            search = _Search(profiler, layers, tried, name, say)
            found = search.run() or base
            blocked.update(search.blocked)
            builds += search.builds
            for layer in tried:
                ms, base_ms = found.milliseconds.get(layer, 0.0), base.milliseconds.get(layer, 0.0)
                if found is not base and layer in found.unmet and ms > _GAIN * base_ms:
                    idle[layer, name] = f"the engine runs it in {found.unmet[layer]}, {ms:.4f} ms, fp16 {base_ms:.4f}"
                    say(f"{layer}: {name} gains nothing here, stays {UNQUANTIZED} ({idle[layer, name]})")
        for layer in layers:
            costs[layer, name] = found.milliseconds.get(layer, 0.0)
        progress(number)
    return ProbeTable(base.device, base.version, costs, base.fixed_ms, Unsupported(blocked), builds, Unsupported(idle))


class _Search:
    """Finds those of the wanted layers that cannot be built in one format; all others stay unquantized."""

    def __init__(
        self,
        profiler: Profiler,
        layers: Sequence[str],
        wanted: Sequence[str],
        fmt: str,
        say: Callable[[str], None],
    ) -> None:
        self._profiler, self._layers, self._wanted, self._fmt, self._say = profiler, layers, wanted, fmt, say
        self.blocked: dict[tuple[str, str], str] = {}
        self.builds = 0

    def run(self) -> LayerCosts | None:
        """Profile of all layers that can be built together in the format; None where there are none."""
        found = self._try(list(self._wanted))
        while isinstance(found, Failure):
            remaining = self._allowed()
            if not remaining:
                return None
            if self.builds >= MAX_BUILDS:
                self._block(remaining, found)
                return None
            self._isolate(remaining, found)
            found = self._try(self._allowed())
        return found

    def _isolate(self, layers: list[str], failure: Failure) -> None:
        """Blocks at least one of `layers`, whose build just failed."""
        if failure.layer in layers:
            self._block([failure.layer], failure)
        elif len(layers) == 1:
            self._block(layers, failure)
        elif self.builds < MAX_BUILDS:
            middle = len(layers) // 2
            halves = [layers[:middle], layers[middle:]]
            outcomes = [self._try(half) for half in halves]
            for half, outcome in zip(halves, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    self._isolate(half, outcome)
            if not any(isinstance(outcome, Failure) for outcome in outcomes):
                # Each half builds, only both together do not: the smaller cut that is sure to help.
                self._block(halves[1], failure)
        else:
            self._block(layers, failure)

    def _try(self, layers: list[str]) -> LayerCosts | Failure:
        self.builds += 1
        chosen = dict.fromkeys(self._layers, UNQUANTIZED) | dict.fromkeys(layers, self._fmt)
        return self._profiler.costs(Allocation.of(chosen))

    def _block(self, layers: list[str], failure: Failure) -> None:
        for layer in layers:
            self.blocked[layer, self._fmt] = failure.message
            self._say(f"{layer}: {self._fmt} cannot be built here, stays {UNQUANTIZED} ({failure.message})")

    def _allowed(self) -> list[str]:
        return [layer for layer in self._wanted if (layer, self._fmt) not in self.blocked]
