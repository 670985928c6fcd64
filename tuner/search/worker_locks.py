"""Who works on what: a worker is alive as long as a lock of its own is held, which ends with its process.

No clock and no heartbeat takes part: the kernel of the host, or the PostgreSQL server that the worker is connected to,
gives a lock back the moment that its holder dies, however it dies.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy
from filelock import FileLock, Timeout

from tuner.study.storage_url import connectable

# How often a worker looks whether it is its turn, seconds; a turn takes some milliseconds.
_POLL_SECONDS = 0.002


class WorkerLocks(Protocol):
    """One worker's own lock, the others' locks, and the turn to hand out trials.

    A trial is handed out during a turn: from before Optuna's `ask` until the trial names its worker. So whoever has the
    turn knows that a RUNNING trial without a worker, or with one that is not alive, belongs to nobody.

    Attributes:
        worker: This worker's name.
    """

    worker: str

    def turn(self) -> AbstractContextManager[None]:
        """Waits until no other worker hands out trials, and keeps the others waiting."""

    def alive(self, worker: str) -> bool:
        """Whether a worker lives."""

    def close(self) -> None:
        """Gives up this worker's own lock."""


class FileLocks:
    """Locks of the workers of one host, by files that the kernel locks.

    Args:
        folder: Of the run's workers.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.worker = secrets.token_hex(4)
        self._own = FileLock(self._file(self.worker))
        self._own.acquire(timeout=0)
        self._turn = FileLock(folder / "turn.lock")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the turn."""
        with self._turn.acquire(poll_interval=_POLL_SECONDS):
            yield

    def alive(self, worker: str) -> bool:
        """Whether the file of a worker is locked; the file of a dead one is removed."""
        if worker == self.worker:
            return True
        path = self._file(worker)
        if not path.exists():
            return False
        try:
            with FileLock(path).acquire(timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            return True
        return False

    def close(self) -> None:
        """Unlocks and removes this worker's file."""
        self._file(self.worker).unlink(missing_ok=True)
        self._own.release()

    def _file(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"


class ServerLocks:
    """Locks of workers on many hosts, by advisory locks of the PostgreSQL session that each of them holds open.

    Args:
        url: Of the storage.
        study: Name of the study.
    """

    def __init__(self, url: str, study: str) -> None:
        # A host that vanishes without a word is noticed after 15 seconds instead of the server's two hours.
        probes = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=2"
        check = "-c client_connection_check_interval=1000"
        self._engine = sqlalchemy.create_engine(
            connectable(url),
            poolclass=sqlalchemy.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"options": f"{probes} {check}"},
        )
        self._connection = self._engine.connect()
        self._study = int.from_bytes(hashlib.sha256(study.encode()).digest()[:4], "big") >> 1
        self.worker = secrets.token_hex(4)
        self._ask("SELECT pg_advisory_lock(:study, :key)", self._key(self.worker))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the turn."""
        self._ask("SELECT pg_advisory_lock(:study, :key)", 0)
        try:
            yield
        finally:
            self._ask("SELECT pg_advisory_unlock(:study, :key)", 0)

    def alive(self, worker: str) -> bool:
        """Whether some session of the server holds the worker's lock."""
        query = (
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND classid = :study AND objid = :key)"
        )
        return bool(self._ask(query, self._key(worker)))

    def close(self) -> None:
        """Ends the session, and with it its locks."""
        self._connection.close()
        self._engine.dispose()

    def _ask(self, query: str, key: int) -> object:
        return self._connection.execute(sqlalchemy.text(query), {"study": self._study, "key": key}).scalar()

    @staticmethod
    def _key(worker: str) -> int:
        """A lock's number, 1 to 2**31 - 1; 0 is the turn's."""
        return (int(worker, 16) >> 1) or 1


def serves_hosts(url: str | None) -> bool:
    """Whether workers of several hosts can share this storage and its locks; else those of one can."""
    return url is not None and url.startswith(("postgresql:", "postgresql+"))


@contextmanager
def open_worker_locks(folder: Path, url: str | None, study: str) -> Iterator[WorkerLocks]:
    """Takes a worker's own lock, for as long as it works.

    Args:
        folder: Of the run's workers, for a storage that is no server's.
        url: Of the storage, where the user named one.
        study: Name of the study.
    """
    locks: WorkerLocks = ServerLocks(url, study) if url is not None and serves_hosts(url) else FileLocks(folder)
    try:
        yield locks
    finally:
        locks.close()
