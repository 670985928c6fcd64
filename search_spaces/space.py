"""SearchSpace: the groups of a model and the formats that each may take."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.formats import UNQUANTIZED, get_format
from search_spaces.groups import Group, group_layers
from search_spaces.layers import Layer


@dataclass(frozen=True)
class Rule:
    """Restricts the layers that match a shell-style pattern to some formats; later rules win.

    Attributes:
        layers: Pattern over layer names and module paths, e.g. ``/model.0/*``.
        formats: Allowed format names.
    """

    layers: str
    formats: tuple[str, ...]


@dataclass(frozen=True)
class SearchSpace:
    """Groups and, in the same order, the formats each may take.

    Attributes:
        groups: Layer groups, in model order; each is one categorical parameter of the study.
        formats: Allowed format names of each group, in the study's order.
        layers: Names of all quantizable layers, in model order.
    """

    groups: tuple[Group, ...]
    formats: tuple[tuple[str, ...], ...]
    layers: tuple[str, ...]

    @staticmethod
    def build(
        layers: Sequence[Layer],
        formats: Sequence[str],
        granularity: str = "layer",
        rules: Sequence[Rule] = (),
    ) -> SearchSpace:
        """Builds the space of a model.

        Raises:
            InputError: An unknown format or granularity, a rule that matches no layer, a group without a format
                that all its layers allow, or a model without quantizable layers.
        """
        if not formats:
            raise InputError("space.formats: empty; name at least one format, e.g. [fp16, int8]")
        for name in formats:
            get_format(name)
        quantizable = [layer for layer in layers if layer.quantizable]
        if not quantizable:
            raise InputError("the model has no quantizable layer; `tuner layers MODEL` lists the reasons")
        by_name = {layer.name: layer for layer in quantizable}

        def possible(names: Sequence[str], layer: Layer, key: str) -> tuple[str, ...]:
            lacking = {name: why for name in names if (why := layer.lacks(get_format(name)))}
            left = tuple(name for name in dict.fromkeys(names) if name not in lacking)
            if not left:
                raise InputError(f"{key}: no format is left for layer {layer.name!r}: {next(iter(lacking.values()))}")
            return left

        allowed = {layer.name: possible(formats, layer, "space.formats") for layer in quantizable}
        for rule in rules:
            for name in rule.formats:
                get_format(name)
            matched = [
                layer.name
                for layer in quantizable
                if fnmatch.fnmatchcase(layer.name, rule.layers) or fnmatch.fnmatchcase(layer.module, rule.layers)
            ]
            if not matched:
                hint = nearest(rule.layers, [layer.name for layer in quantizable])
                raise InputError(f"space.rules: {rule.layers!r} matches no quantizable layer{hint}")
            if not rule.formats:
                raise InputError(f"space.rules: {rule.layers!r} allows no format; name at least one")
            allowed.update({name: possible(rule.formats, by_name[name], "space.rules") for name in matched})
        groups = group_layers(quantizable, granularity)
        choices = []
        for group in groups:
            first, *others = (allowed[name] for name in group.layers)
            common = tuple(name for name in first if all(name in other for other in others))
            if not common:
                raise InputError(f"space.rules: no format is allowed for every layer of group {group.name!r}")
            choices.append(common)
        return SearchSpace(groups, tuple(choices), tuple(layer.name for layer in quantizable))

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """``{group name: allowed formats}``: the parameters of the study."""
        return {group.name: names for group, names in zip(self.groups, self.formats, strict=True)}

    def allocation(self, choices: Mapping[str, str]) -> Allocation:
        """Returns the allocation that gives each group its chosen format, layers in model order.

        Args:
            choices: ``{group name: format name}``, complete.
        """
        by_layer = {name: choices[group.name] for group in self.groups for name in group.layers}
        return Allocation.of({name: by_layer[name] for name in self.layers})

    def choices(self, allocation: Allocation) -> dict[str, str]:
        """Returns ``{group name: format name}`` of an allocation.

        Raises:
            InputError: The allocation lies outside the space.
        """
        chosen: dict[str, str] = {}
        for group, names in zip(self.groups, self.formats, strict=True):
            found = {allocation.formats.get(layer) for layer in group.layers}
            name = found.pop()
            if found or name not in names:
                raise InputError(f"scheme: {group.name!r} cannot be {name!r} here (allowed: {', '.join(names)})")
            chosen[group.name] = name
        return chosen

    def check(self, choices: Mapping[str, object], name: str, remedy: str, *, whole: bool = True) -> None:
        """Refuses choices that somebody may have changed since they were written.

        Args:
            choices: ``{group name: format name}``.
            name: What holds them, the start of the error's line.
            remedy: Its end.
            whole: Whether every group must have a format.

        Raises:
            InputError: A group has no format, or one that it may not take, or there is no such group.
        """
        parameters = self.parameters()
        if other := choices.keys() - parameters.keys():
            raise InputError(f"{name}: {min(other)[:80]!r} is no group of the space; {remedy}")
        for group, formats in parameters.items():
            if group in choices and choices[group] not in formats:
                given = repr(choices[group])[:80]
                raise InputError(f"{name}: {group!r} is {given}, not one of {', '.join(formats)}; {remedy}")
            if whole and group not in choices:
                raise InputError(f"{name}: {group!r} has no format; {remedy}")

    def contains(self, allocation: Allocation) -> bool:
        """Whether the allocation lies in the space."""
        try:
            self.choices(allocation)
        except InputError:
            return False
        return True

    def project(self, fmt: str) -> dict[str, str]:
        """Gives every group `fmt` where allowed, else the group's first format."""
        return {g.name: fmt if fmt in names else names[0] for g, names in zip(self.groups, self.formats, strict=True)}

    def same_but_for_names(self, other: SearchSpace) -> bool:
        """Whether another space has the same layers, grouped alike, and the same choices for each group."""
        grouped = ([group.layers for group in space.groups] for space in (self, other))
        return (self.layers, self.formats, next(grouped)) == (other.layers, other.formats, next(grouped))

    @property
    def quantized_formats(self) -> list[str]:
        """Formats of any group, the unquantized one aside."""
        return [name for name in dict.fromkeys(n for names in self.formats for n in names) if name != UNQUANTIZED]

    @property
    def quantized_pairs(self) -> list[tuple[str, str]]:
        """All (layer, format) pairs that the space allows, the unquantized format aside."""
        allowed = zip(self.groups, self.formats, strict=True)
        return [(layer, fmt) for g, names in allowed for layer in g.layers for fmt in names if fmt != UNQUANTIZED]

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over groups and formats."""
        pairs = zip(self.groups, self.formats, strict=True)
        data = [[group.key or group.name, list(group.layers), list(formats)] for group, formats in pairs]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
