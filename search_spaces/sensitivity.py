"""SensitivityTable: how much each (layer, format) hurts, as data with its provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from search_spaces import markdown, spreadsheet
from search_spaces.errors import InputError
from search_spaces.reading import parse_json, record_of


@dataclass(frozen=True)
class SensitivityEntry:
    """One measurement.

    Attributes:
        layer: Layer name.
        format: Format name.
        score: Divergence from the reference when this layer alone has this format; >= 0, higher is worse. Its unit
            is the table's `metric`.
        seconds: Wall time of the measurement.
    """

    layer: str
    format: str
    score: float
    seconds: float = 0.0


@dataclass(frozen=True)
class SensitivityTable:
    """Scores of one layer and one format at a time.

    Attributes:
        method: ``onnx``, ``modelopt``, ``inc`` or ``file``.
        metric: What a score means, e.g. ``kl+iou``.
        model: Digest of the model file.
        images: Number of images each score averages over.
        entries: The measurements.
        settings: Further provenance (weight method, granularity, calibration method).
    """

    method: str
    metric: str
    model: str
    images: int
    entries: tuple[SensitivityEntry, ...]
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def scores(self) -> dict[tuple[str, str], float]:
        """``{(layer, format): score}``."""
        return {(entry.layer, entry.format): entry.score for entry in self.entries}

    def score(self, layer: str, fmt: str) -> float:
        """Score of one pair; the unquantized format and unknown pairs count 0."""
        return self.scores.get((layer, fmt), 0.0)

    def ranking(self, fmt: str | None = None) -> list[SensitivityEntry]:
        """Entries from the most to the least sensitive, of one format or of all."""
        chosen = [entry for entry in self.entries if fmt in (None, entry.format)]
        return sorted(chosen, key=lambda entry: -entry.score)

    def to_json(self) -> str:
        """Returns the table as JSON text."""
        data = {
            "method": self.method,
            "metric": self.metric,
            "model": self.model,
            "images": self.images,
            "settings": dict(self.settings),
            "entries": [vars(entry) for entry in self.entries],
        }
        return json.dumps(data, indent=1)

    @staticmethod
    def from_json(text: str) -> SensitivityTable:
        """Reads what `to_json` wrote.

        Raises:
            InputError: The text is not such a table.
        """
        name, remedy = "sensitivity table", "measure it with `tuner sensitivity`"
        table = record_of(SensitivityTable, parse_json(text, name, remedy), name, remedy)
        if not all(math.isfinite(entry.score) for entry in table.entries):
            raise InputError(f"{name}: holds a score that is not finite; {remedy}")
        return table

    def to_csv(self) -> str:
        """Returns ``rank,layer,format,score,seconds`` rows, most sensitive first."""
        rows = (
            {"rank": n, "layer": e.layer, "format": e.format, "score": f"{e.score:.6g}", "seconds": f"{e.seconds:.3f}"}
            for n, e in enumerate(self.ranking(), 1)
        )
        return spreadsheet.table(["rank", "layer", "format", "score", "seconds"], rows)

    def to_markdown(self) -> str:
        """Returns a report: provenance, then a layer x format table, most sensitive layer first."""
        formats = list(dict.fromkeys(entry.format for entry in self.entries))
        worst: dict[str, float] = {}
        for entry in self.entries:
            worst[entry.layer] = max(worst.get(entry.layer, 0.0), entry.score)
        settings = "".join(f"- {key}: {markdown.plain(value)}\n" for key, value in self.settings.items())
        head = (
            f"# Layer sensitivity\n\n- method: {self.method}\n- metric: {self.metric} (0 = same as the reference)\n"
            f"- model: sha256 {self.model[:16]}\n- images: {self.images}\n{settings}"
            f"- seconds: {sum(entry.seconds for entry in self.entries):.0f}\n\n"
        )
        return head + markdown.table(
            ["rank", "layer", *formats],
            [
                [str(rank), markdown.code(layer), *(self._cell(layer, name) for name in formats)]
                for rank, layer in enumerate(sorted(worst, key=lambda name: -worst[name]), 1)
            ],
        )

    def _cell(self, layer: str, fmt: str) -> str:
        return f"{self.scores[layer, fmt]:.3g}" if (layer, fmt) in self.scores else ""
