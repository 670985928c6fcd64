"""A Ray cluster: how it is joined, what a worker asks of it, and whose hosts its nodes are."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.registry import RUNTIMES
from objectives.runtimes.settings import RuntimeSettings
from search_spaces.errors import InputError

_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class RayCluster:
    """Where workers are placed.

    Attributes:
        address: ``HOST:PORT`` of the cluster's head; ``auto`` is the cluster that runs on this host.
        share: What one worker takes: GPUs where the study's runtime uses one, else CPUs.
    """

    address: str
    share: float = 1.0

    def resources(self, runtime: RuntimeSettings) -> dict[str, float]:
        """What a worker asks of Ray, by the names of its options.

        Raises:
            InputError: Ray does not hand out such a share.
        """
        gpu = RUNTIMES.get(runtime.name).gpu
        if not 0.01 <= self.share <= (1 if gpu else 1024):
            most = "1 GPU, all that a worker uses" if gpu else "1024 CPUs"
            raise InputError(f"--ray-share {self.share:g}: must be 0.01 to {most}")
        if self.share > 1 and self.share % 1:
            raise InputError(f"--ray-share {self.share:g}: must be a whole number above 1, for Ray divides no more")
        return {"num_gpus": self.share, "num_cpus": 1} if gpu else {"num_cpus": self.share}


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster as long as the block runs.

    Args:
        address: As `RayCluster` has it.

    Raises:
        InputError: No cluster answers there.
        RuntimeUnavailable: The package is missing.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise RuntimeUnavailable(
            "--ray: the Python package ray is missing; install the extra: `pip install tuner[ray]`"
        ) from None
    advice = "`ray start --head` begins one"
    _check_answers(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address, advice)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"--ray {address!r}: no cluster to join ({' '.join(str(error).split())}); {advice}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray put its own in its place
    try:
        yield ray
    finally:
        ray.shutdown()


def room_for(nodes: Sequence[Mapping[str, Any]], wanted: Mapping[str, float]) -> int:
    """How many workers fit on the nodes of a cluster, were they idle.

    Args:
        nodes: As ``ray.nodes()`` tells them.
        wanted: As `RayCluster.resources` does.
    """
    names = {"num_gpus": "GPU", "num_cpus": "CPU"}
    return sum(
        min(int(node["Resources"].get(names[name], 0) / amount + 1e-9) for name, amount in wanted.items())
        for node in nodes
    )


def foreign_nodes(nodes: Sequence[Mapping[str, Any]], own: Collection[str]) -> list[str]:
    """Addresses of the nodes that are not on this host.

    Args:
        nodes: As ``ray.nodes()`` tells them.
        own: Addresses of this host.
    """
    return sorted({str(node["NodeManagerAddress"]) for node in nodes} - set(own))


def own_addresses() -> frozenset[str]:
    """Addresses of this host's network interfaces."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    return frozenset(entry.address.partition("%")[0] for entry in found if entry.family in families)


def one_host_line(foreign: Sequence[str]) -> str:
    """Why a worker cannot work there."""
    nodes = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
    return (
        f"SQLite serves one host, and the cluster has nodes on others ({nodes}); "
        "set `storage: postgresql+psycopg://...` in the study file"
    )


def _check_answers(address: str, advice: str) -> None:
    """Refuses an address where nobody listens: Ray itself would try for minutes."""
    if not address:
        return  # Ray looks for a cluster on this host
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InputError(f"--ray {address!r}: must be HOST:PORT, or auto for the cluster that runs on this host")
    try:
        socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address!r}: nobody answers ({error}); {advice}") from None
