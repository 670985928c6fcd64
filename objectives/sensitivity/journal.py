"""Journal: measured pairs on disk, appended one by one, so that an interrupted sweep resumes."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path

from search_spaces.durable import append_durably
from search_spaces.regular import read_regular
from search_spaces.sensitivity import SensitivityEntry


class Journal:
    """A JSON-lines file of measurements, keyed by everything that decides them.

    A line cut short by a crash is ignored; it is never overwritten.

    Args:
        path: The file; created when the first measurement is written.
        provenance: What, besides layer and format, decides a score.
    """

    def __init__(self, path: Path, provenance: Mapping[str, str]) -> None:
        self._path = path
        self._provenance = json.dumps(dict(provenance), sort_keys=True)
        self._lock = threading.Lock()
        self._entries = self._read()

    def get(self, layer: str, fmt: str) -> SensitivityEntry | None:
        """The measurement of a pair under this provenance; None where there is none."""
        return self._entries.get(self._key(layer, fmt))

    def add(self, entry: SensitivityEntry) -> None:
        """Makes a measurement durable; may be called from several threads."""
        key = self._key(entry.layer, entry.format)
        with self._lock:
            append_durably(self._path, json.dumps({"key": key, **vars(entry)}))
            self._entries[key] = entry

    def _key(self, layer: str, fmt: str) -> str:
        return hashlib.sha256(json.dumps([self._provenance, layer, fmt]).encode()).hexdigest()[:32]

    def _read(self) -> dict[str, SensitivityEntry]:
        found: dict[str, SensitivityEntry] = {}
        if not self._path.is_file():
            return found
        for line in read_regular(self._path).splitlines():
            try:
                data = json.loads(line)
                entry = SensitivityEntry(data["layer"], data["format"], float(data["score"]), float(data["seconds"]))
                if math.isfinite(entry.score):
                    found[str(data["key"])] = entry
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue
        return found
