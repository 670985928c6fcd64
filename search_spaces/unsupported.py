"""Unsupported pairs: formats that the target runtime cannot build for a layer, and how schemes steer around them.

Optuna's distributions may not change during a study, so a pair is not taken out of the space: every proposal is
repaired before it becomes a trial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED
from search_spaces.groups import Group
from search_spaces.reading import parse_json, record_of
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Unsupported:
    """Pairs that cannot be built.

    Attributes:
        pairs: ``{(layer, format): reason}``.
    """

    pairs: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def with_pair(self, layer: str, fmt: str, reason: str) -> Unsupported:
        """These pairs and one more."""
        return Unsupported({**self.pairs, (layer, fmt): reason})

    def union(self, other: Unsupported) -> Unsupported:
        """The pairs of both."""
        return Unsupported({**self.pairs, **other.pairs})

    def blocks(self, group: Group, fmt: str) -> bool:
        """Whether a layer of the group cannot be built in the format."""
        return any((layer, fmt) in self.pairs for layer in group.layers)

    def repair(self, space: SearchSpace, choices: Mapping[str, str]) -> dict[str, str]:
        """Replaces every blocked choice by ``fp16`` where the group may take it, else by its first free format.

        Args:
            space: Groups and formats.
            choices: ``{group: format}``.

        Raises:
            InputError: A group has no format left.
        """
        fixed = dict(choices)
        for group, formats in zip(space.groups, space.formats, strict=True):
            if group.name not in fixed or not self.blocks(group, fixed[group.name]):
                continue
            free = [name for name in formats if not self.blocks(group, name)]
            if not free:
                raise InputError(
                    f"space: no format of {', '.join(formats)} can be built for {group.name!r}; add fp16 to its formats"
                )
            fixed[group.name] = UNQUANTIZED if UNQUANTIZED in free else free[0]
        return fixed

    def repair_allocation(self, allocation: Allocation) -> Allocation:
        """The allocation with its blocked layers unquantized."""
        return Allocation.of(
            {layer: UNQUANTIZED if (layer, fmt) in self.pairs else fmt for layer, fmt in allocation.items}
        )

    def to_json(self) -> str:
        """Returns JSON text."""
        return json.dumps([[layer, fmt, reason] for (layer, fmt), reason in self.pairs.items()])

    @staticmethod
    def from_json(text: str) -> Unsupported:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The text is something else.
        """
        name = "blocked pairs"
        rows = record_of(list[tuple[str, str, str]], parse_json(text, name, "delete the file"), name)
        return Unsupported({(layer, fmt): reason for layer, fmt, reason in rows})
