"""A package of somebody else's beside the project: one module and its entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def install(folder: Path, module: str, entry_points: str) -> Path:
    """Writes a package called ``added`` as an installer leaves it; returns the folder to put on the path."""
    info = folder / "added-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "added.py").write_text(module)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder


def tuner(package: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line where the package is installed."""
    path = os.pathsep.join([str(package), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
