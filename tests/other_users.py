"""A run of somebody else's: this process's user may read it and not write it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_POWERS = "-dac_override,-dac_read_search"
_NOBODY = 65534


def give_away(folder: Path) -> list[str]:
    """Has a folder belong to another user, or nobody write it where only root could; returns what begins a command.

    Root may write everywhere until its processes lack the capabilities for it, see capabilities(7).
    """
    paths = [folder, *folder.rglob("*")]
    if os.geteuid():
        for path in paths:
            path.chmod(path.stat().st_mode & ~0o222)
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv of util-linux is not here")
    for path in paths:
        os.chown(path, _NOBODY, _NOBODY)
    before = ["setpriv", f"--bounding-set={_POWERS}", f"--inh-caps={_POWERS}"]
    if subprocess.run([*before, "test", "-w", folder], check=False).returncode == 0:
        pytest.skip("root keeps its powers here")
    return before


def state(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of all that a folder holds."""
    paths = sorted([folder, *folder.rglob("*")])
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]
