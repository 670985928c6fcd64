"""Worker processes on a Ray cluster: Ray finds each a place with free resources, and we replace those that it loses.

Each worker is the child of an actor, on the actor's node, and ends with it: so a node that dies, or loses its cluster,
takes its workers with it, and what they claimed is free again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from objectives.runners.runner import RuntimeUnavailable
from search_spaces.errors import InputError
from search_spaces.regular import open_appending
from tuner.search.worker_locks import serves_hosts
from tuner.study.config import StudyConfig
from tuner.study.storage_url import PASSWORD
from tuner.terminal.console import BAD_INPUT, DONE, say
from tuner.workers.local import LocalWorker
from tuner.workers.ray_cluster import RayCluster, foreign_nodes, joined, one_host_line, own_addresses, room_for
from tuner.workers.supervisor import GRACE_SECONDS, Start, Worker, last_line

#: Status of a worker whose node or actor is gone.
LOST = -1


class Place:
    """The actor: one worker on one node.

    Args:
        run: Folder of the run.
        log: File that the worker's words are added to; the one who asks has made it.
        one_gpu: Whether Ray lets it see one GPU.
        hosts: Addresses that it may be placed on; None where any will do.
        password: Of the storage, which Ray shows nobody: as an environment of Ray's it would.
    """

    def __init__(self, run: Path, log: Path, one_gpu: bool, hosts: Collection[str] | None, password: str) -> None:
        import ray

        if password:
            os.environ[PASSWORD] = password
        self._node = ray.util.get_node_ip_address()
        self._log = log
        self._refusal = _refusal(self._node, log, hosts)
        self._worker = None if self._refusal else LocalWorker(run, log, one_gpu=one_gpu)

    def run(self) -> tuple[int, str]:
        """Exit status of the worker, once it has ended, and what there is to say about it."""
        if self._worker is None:
            return BAD_INPUT, self._refusal
        status = self._worker.wait()
        return status, "" if status == DONE else f"{last_line(self._log)} (on node {self._node})"

    def end(self, seconds: float) -> None:
        """Asks the worker to end, and ends it if it does not within the time."""
        if self._worker is not None:
            self._worker.terminate()
            self._worker.end(seconds)


class RayWorker:
    """What we hold of a worker that was placed, or waits for its place.

    Args:
        ray: The module.
        actor: Its `Place`.
        log: File that its words are added to.
    """

    def __init__(self, ray: Any, actor: Any, log: Path) -> None:
        self._ray, self._actor, self._log = ray, actor, log
        self._placed, self._result = actor.__ray_ready__.remote(), actor.run.remote()
        self._ended: Any = None
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status; None as long as it runs, or waits for a place."""
        if self._status is None and self._ray.wait([self._result], timeout=0)[0]:
            try:
                self._status, said = self._ray.get(self._result)
            except self._ray.exceptions.RayError as error:
                self._status, said = LOST, f"ray: {' '.join(str(error).split())}"
                self._ray.kill(self._actor)  # where only the way to it was lost, it would go on unwatched
            if said:
                with open_appending(self._log) as file:
                    file.write(f"{said}\n".encode())
        return self._status

    def waiting(self) -> bool:
        """Whether it waits for a place."""
        return not self._ray.wait([self._placed], timeout=0)[0]

    def terminate(self) -> None:
        """Asks it to end, once it has a place."""
        self._ended = self._actor.end.remote(GRACE_SECONDS)

    def end(self, seconds: float) -> None:
        """Waits so long for its end, if it has begun; then kills its actor, with which it ends."""
        if self._ended is not None and not self.waiting():
            self._ray.wait([self._ended], timeout=seconds)
        self._ray.kill(self._actor)


@contextmanager
def ray_start(cluster: RayCluster, config: StudyConfig, count: int) -> Iterator[Start]:
    """Joins a cluster, and starts workers there as long as the block runs.

    Args:
        cluster: Which.
        config: The study.
        count: Number of workers that are to come.

    Raises:
        InputError: No cluster answers, or its nodes are on several hosts and the study's storage serves one.
        RuntimeUnavailable: Ray is missing, or no node has room for a worker.
    """
    wanted = cluster.resources(config.runtime)
    with joined(cluster.address) as ray:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        password = os.environ.get(PASSWORD, "")
        hosts = None if serves_hosts(config.storage) else own_addresses()
        if hosts is not None and (foreign := foreign_nodes(nodes, hosts)):
            raise InputError(f"storage: {one_host_line(foreign)}")
        room = room_for(nodes, wanted)
        if room == 0:
            need = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
            raise RuntimeUnavailable(f"--ray {cluster.address}: none of {len(nodes)} nodes has {need} for a worker")
        if room < count:
            say(f"ray: {room} of {count} workers have room; the others wait for it")
        placed = ray.remote(max_restarts=0, max_concurrency=3, scheduling_strategy="SPREAD", **wanted)(Place)

        def start(index: int, run: Path, log: Path) -> Worker:
            open_appending(log).close()
            return RayWorker(ray, placed.remote(run, log, config.runtime_type.gpu, hosts, password), log)

        yield start


def _refusal(node: str, log: Path, hosts: Collection[str] | None) -> str:
    """Why this node is no place for a worker; empty where it is one."""
    if hosts is not None and node not in hosts:  # it joined after the others were looked at
        return f"tuner: error: storage: {one_host_line([node])}"
    if not log.is_file():
        folder = str(log.parent.parent)
        return f"tuner: error: run folder {folder!r} is not to be seen from node {node}; share it under the same path"
    return ""
