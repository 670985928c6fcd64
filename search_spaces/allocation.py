"""Allocation: one scheme, i.e. a format for every quantizable layer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED, get_format
from search_spaces.reading import parse_json


@dataclass(frozen=True)
class Allocation:
    """A format for every quantizable layer of one model, in model order.

    Attributes:
        items: ``(layer name, format name)`` pairs.
        numbers: Key of the refined numbers that stand in these formats; empty of those that all schemes share.
    """

    items: tuple[tuple[str, str], ...]
    numbers: str = ""

    @staticmethod
    def of(choices: Mapping[str, str]) -> Allocation:
        """Builds an allocation from ``{layer: format}``, checking the format names.

        Raises:
            InputError: A format is unknown.
        """
        for name in choices.values():
            get_format(name)
        return Allocation(tuple(choices.items()))

    @staticmethod
    def uniform(layers: Iterable[str], fmt: str) -> Allocation:
        """Gives every layer the same format."""
        return Allocation.of({name: fmt for name in layers})

    @staticmethod
    def from_text(text: str) -> Allocation:
        """Reads what `text` wrote.

        Raises:
            InputError: `text` is not a JSON object of layer to format.
        """
        choices = parse_json(text, "scheme", "give a scheme.json")
        if isinstance(choices, dict) and isinstance(choices.get("allocation"), dict):
            choices = choices["allocation"]
        if not isinstance(choices, dict) or not all(isinstance(v, str) for v in choices.values()):
            raise InputError('scheme: must be a JSON object {"layer": "format", ...}')
        return Allocation.of(choices)

    @cached_property
    def formats(self) -> dict[str, str]:
        """``{layer: format}``, in model order."""
        return dict(self.items)

    def __getitem__(self, layer: str) -> str:
        return self.formats[layer]

    @property
    def text(self) -> str:
        """Canonical text: JSON, in model order, without spaces."""
        return json.dumps(self.formats, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of text and `numbers`, independent of the order of layers."""
        canonical = json.dumps(sorted(self.items), separators=(",", ":"))
        return hashlib.sha256((canonical + self.numbers).encode()).hexdigest()[:16]

    @property
    def unquantized(self) -> bool:
        """Whether no layer is quantized."""
        return all(fmt == UNQUANTIZED for _, fmt in self.items)

    def words(self, named: int = 4) -> str:
        """The formats with the layers of the rarer ones, e.g. ``int8 x 61; fp16 x 2: /model.0/conv, /model.22/cv3``.

        Args:
            named: Most layers that are listed of a format.
        """
        counts = Counter(self.formats.values()).most_common()
        text = []
        for place, (name, count) in enumerate(counts):
            layers = [layer for layer, fmt in self.items if fmt == name]
            text.append(f"{name} x {count}" + (f": {', '.join(layers)}" if place and count <= named else ""))
        return "; ".join(text)

    def summary(self) -> str:
        """Counts by format, most used first, e.g. ``int8 x 70, fp16 x 15``."""
        return ", ".join(f"{name} x {n}" for name, n in Counter(self.formats.values()).most_common())
