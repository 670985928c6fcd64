"""Writes a sensitivity table as md, json and csv."""

from __future__ import annotations

import os
from pathlib import Path

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
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".md": table.to_markdown(), ".json": table.to_json() + "\n", ".csv": table.to_csv()}
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{stem}{suffix}"
        draft = folder / f".{stem}.{os.getpid()}{suffix}"
        try:
            with draft.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        paths.append(path)
    return tuple(paths)
