"""A PostgreSQL server of one's own: on loopback, in a temporary folder, gone afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_USER = "tuner"


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; None where PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        folders.insert(0, Path(found).parent)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@contextmanager
def private_postgres(on_socket: bool = False) -> Iterator[str]:
    """Starts a server; yields its URL for SQLAlchemy, with psycopg as the driver.

    Args:
        on_socket: Whether it listens on a socket in its folder, which other network namespaces see, in place of a port.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    tools = binaries()
    if tools is None:
        raise FileNotFoundError("PostgreSQL's initdb and pg_ctl are not installed; give the URL of a server")
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        folder, password, port = Path(name), secrets.token_hex(16), _free_port()
        secret, data = folder / "password", folder / "data"
        secret.write_text(password)
        who: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            for path in (folder, secret):
                shutil.chown(path, "nobody", "nogroup")

        def call(*command: object) -> None:
            with (folder / "output").open("a") as output:  # a file: the server would keep a pipe open
                done = subprocess.run(
                    [str(part) for part in command], stdout=output, stderr=output, check=False, cwd=folder, **who
                )
            if done.returncode:
                raise RuntimeError(f"{command[0]} failed: {(folder / 'output').read_text()[-2000:]}")

        begin = (tools / "initdb", "-D", data, "-U", _USER, f"--pwfile={secret}", "--auth=scram-sha-256")
        call(*begin, "--encoding=UTF8", "--no-locale")
        listen = "-c listen_addresses=127.0.0.1 -c unix_socket_directories="
        where = f"127.0.0.1:{port}/postgres"
        if on_socket:
            folder.chmod(0o755)
            listen = f"-c listen_addresses= -c unix_socket_directories={folder}"
            where = f"/postgres?host={folder}&port={port}"
        server = (tools / "pg_ctl", "-D", data, "-w")
        call(*server, "-l", folder / "server.log", "-o", f"-p {port} {listen}", "start")
        try:
            yield f"postgresql+psycopg://{_USER}:{password}@{where}"
        finally:
            call(*server, "-m", "immediate", "stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
