"""A PostgreSQL server of a test's own: no port, only a socket in a folder, gone with the block."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Why there is none here; empty where there is one.
MISSING = "" if shutil.which("initdb") and shutil.which("pg_ctl") else "initdb and pg_ctl are not on PATH"


@contextmanager
def postgres() -> Iterator[str]:
    """Starts a server; gives the URL of an empty database."""
    # Its socket's path must be short, and it refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o755)
    become: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
        become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    data = folder / "data"
    options = f"-k {folder} -c listen_addresses= -c fsync=off"

    def call(*words: str | Path) -> None:
        subprocess.run([*become, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        call("initdb", "-D", data, "-U", "tuner", "-A", "trust", "-E", "UTF8")
        call("pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
