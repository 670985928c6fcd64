"""Probing against a target that refuses some pairs; the target answers as TensorRT does, named or nameless."""

from dataclasses import dataclass, field

import pytest

from objectives.runtimes.probing import LayerCosts, ProbeFailedError, ProbeTable, probe
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.groups import Group
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Unsupported

LAYERS = [f"l{index}" for index in range(12)]


@dataclass
class Target:
    """Builds everything but `bad` int8 layers; says which one stopped it only if `named`."""

    bad: tuple[str, ...] = ()
    named: bool = True
    pair: tuple[str, str] | None = None  # two layers that build alone, not together
    without_kernel: dict[str, float] = field(default_factory=dict)  # its milliseconds where it runs in fp32
    asked: list[Allocation] = field(default_factory=list)

    def costs(self, allocation: Allocation) -> LayerCosts | Failure:
        self.asked.append(allocation)
        int8 = {name for name, fmt in allocation.items if fmt == "int8"}
        for layer in self.bad:
            if layer in int8:
                return Failure("build", f"no implementation for node {layer}", layer=layer if self.named else "")
        if self.pair and set(self.pair) <= int8:
            return Failure("crash", "ended by SIGSEGV")
        times = {name: self.without_kernel.get(name, 0.5) if name in int8 else 1.0 for name in LAYERS}
        unmet = {name: "fp32" for name in self.without_kernel if name in int8}
        return LayerCosts(times, 0.25, "GPU", "8.6.0", unmet)


def test_costs_and_blocked_pairs_by_named_failures() -> None:
    target, said = Target(bad=("l3", "l7")), []
    table = probe(target, LAYERS, {"int8": LAYERS, "w8a16": LAYERS}, said.append)
    assert set(table.blocked.pairs) == {("l3", "int8"), ("l7", "int8")} and len(said) == 2
    assert table.builds == len(target.asked) == 4  # fp16, int8 with two failures before it
    assert table.costs["l0", "int8"] == 0.5 and table.costs["l3", "int8"] == 1.0
    assert table.costs["l0", "w8a16"] == table.costs["l0", "fp16"] == 1.0  # computes in fp16: never built
    assert table.cost_table("TensorRT").fixed == 0.25
    assert ProbeTable.from_json(table.to_json()) == table


@pytest.mark.parametrize("bad", [("l0",), ("l5", "l6"), ("l11",)])
def test_nameless_failures_are_found_by_halving(bad: tuple[str, ...]) -> None:
    target = Target(bad=bad, named=False)
    table = probe(target, LAYERS, {"int8": LAYERS})
    assert {layer for layer, _ in table.blocked.pairs} == set(bad)
    assert table.builds <= 20


def test_layers_that_only_fail_together_still_end_in_a_scheme_that_builds() -> None:
    table = probe(Target(pair=("l1", "l9")), LAYERS, {"int8": LAYERS})
    assert 0 < len(table.blocked.pairs) < len(LAYERS)
    assert table.costs["l1", "int8"] == 0.5


def test_a_layer_that_runs_in_another_format_and_no_faster_is_idle() -> None:
    said: list[str] = []
    table = probe(Target(without_kernel={"l2": 1.05, "l3": 0.6}), LAYERS, {"int8": LAYERS}, said.append)
    assert dict(table.idle.pairs) == {("l2", "int8"): "the engine runs it in fp32, 1.0500 ms, fp16 1.0000"}
    assert not table.blocked.pairs and said == [
        "l2: int8 gains nothing here, stays fp16 (the engine runs it in fp32, 1.0500 ms, fp16 1.0000)"
    ]
    assert ProbeTable.from_json(table.to_json()) == table


def test_what_would_never_end_is_not_tried() -> None:
    target, said = Target(), []
    spared = {("l4", "int8"): "no end", ("l5", "fp8"): "not asked for"}
    table = probe(target, LAYERS, {"int8": LAYERS}, said.append, spared)
    assert dict(table.blocked.pairs) == {("l4", "int8"): "no end"} and len(said) == 1
    assert all(scheme["l4"] == "fp16" for scheme in target.asked) and table.costs["l4", "int8"] == 1.0
    none = probe(target, LAYERS, {"int8": ["l4"]}, spared=spared)
    assert none.costs["l0", "int8"] == 1.0, "nothing is left to try"


def test_an_idle_format_is_kept_out_unless_it_may_pay_or_nothing_else_is_left() -> None:
    table = ProbeTable(
        "GPU",
        "8.6.0",
        {},
        0.0,
        Unsupported({("l0", "int8"): "no kernel"}),
        2,
        Unsupported({("l1", "int8"): "runs in fp32"}),
    )

    def space(groups: list[list[str]], formats: tuple[str, ...] = ("fp16", "int8")) -> SearchSpace:
        named = tuple(Group(names[0], tuple(names)) for names in groups)
        return SearchSpace(named, (formats,) * len(named), tuple(name for names in groups for name in names))

    alone = space([["l0"], ["l1"], ["l2"]])
    kept_out = table.kept_out(alone, size=False)
    assert kept_out.repair(alone, dict.fromkeys(["l0", "l1", "l2"], "int8")) == {
        "l0": "fp16", "l1": "fp16", "l2": "int8",
    }  # fmt: skip
    assert table.kept_out(alone, size=True) == table.blocked, "it saves bytes"
    assert table.kept_out(space([["l0"], ["l1", "l2"]]), size=False) == table.blocked, "l2 shares the choice"
    assert table.kept_out(space([["l0"], ["l1"]], ("int8",)), size=False) == table.blocked, "no fp16 to fall back to"


def test_only_the_wanted_layers_are_tried() -> None:
    target = Target(bad=("l0",))
    table = probe(target, LAYERS, {"int8": ["l4", "l5"]})
    assert not table.blocked.pairs and all(a.formats["l0"] == "fp16" for a in target.asked)
    assert table.costs["l0", "int8"] == 1.0 and table.costs["l4", "int8"] == 0.5


def test_an_unquantized_model_that_cannot_be_built_is_an_error() -> None:
    class Broken:
        def costs(self, allocation: Allocation) -> Failure:
            return Failure("build", "unsupported operator NonZero")

    with pytest.raises(ProbeFailedError, match="NonZero"):
        probe(Broken(), LAYERS, {"int8": LAYERS})
