"""Writes a sensitivity table as md, json and csv."""

from __future__ import annotations

from pathlib import Path

from search_spaces.durable import write_durably
from search_spaces.sensitivity import SensitivityTable

STEM = "layer-sensitivity-report"


def write_reports(table: SensitivityTable, folder: Path, stem: str = STEM) -> tuple[Path, ...]:
    """Writes ``layer-sensitivity-report.md``, ``.json`` and ``.csv``, each whole or not at all.

    Args:
        table: The measurements.
        folder: Created where missing.
        stem: File name without suffix.

    Returns:
        The three paths.
    """
    texts = {".md": table.to_markdown(), ".json": table.to_json() + "\n", ".csv": table.to_csv()}
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{stem}{suffix}"
        write_durably(path, text)
        paths.append(path)
    return tuple(paths)
