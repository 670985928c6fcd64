"""Kills a node of a Ray cluster in the middle of a study and counts what it lost, repeated or left running.

Two nodes run on this machine, on loopback in a network namespace of their own, for whoever reaches a Ray cluster can
run anything on it; four workers replay scores, two a node. In the middle one node dies: all of its processes at once
(`--how machine`), or its raylet alone (`--how raylet`), whose workers must then end by themselves. Or the command that
placed them is ended (`--how sigterm`, `--how sigkill`), and all workers must be gone. `audited.audit` resumes a
study that has not ended, without Ray, and counts as it does there; besides:

- victims: workers that had to go, and seconds until none of them was left;
- replaced: workers that Ray found another place for.

    python tests/faults/ray_nodes.py [--how machine] [--postgres] [--hosts 2] [--trials 200]

With `--hosts 2` the nodes have two addresses, as if on two hosts; SQLite is then refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/faults")]

from audited import Tally, audit, prepare  # noqa: E402
from private_postgres import private_postgres  # noqa: E402

from tuner.results.loaded import load_run  # noqa: E402
from tuner.search.trials import counted  # noqa: E402

WORKERS = 4
_NAMESPACE = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
_INSIDE = "TUNER_RAY_NODES_INSIDE"


def own_network() -> list[str]:
    """The start of a command line that gives a command a network of its own; empty where that cannot be."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return []
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    return _NAMESPACE if tried.returncode == 0 else []


def start_cluster(hosts: int):
    """Two nodes of four CPUs; returns the cluster and the node that is to die."""
    from ray.cluster_utils import Cluster

    common = {"num_cpus": WORKERS, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "node_ip_address": "127.0.0.1"})
    return cluster, cluster.add_node(**common, node_ip_address=f"127.0.0.{hosts}")


def workers_of(raylet: psutil.Process) -> list[psutil.Process]:
    """The workers that run on a node."""
    found = []
    for process in raylet.children(recursive=True):
        try:
            if {"tuner", "worker"} <= set(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def strike(how: str, raylets: list[psutil.Process], driver: subprocess.Popen) -> tuple[int, float]:
    """Kills the last node, or ends the driver; returns how many workers had to go, and the seconds until all had."""
    node = raylets[-1]
    struck = [node] if how in ("machine", "raylet") else raylets
    victims = [worker for raylet in struck for worker in workers_of(raylet)]
    doomed = [node] + (node.children(recursive=True) if how == "machine" else [])
    begin = time.monotonic()
    if how == "sigterm":
        driver.terminate()
    elif how == "sigkill":
        driver.kill()
    else:
        for process in doomed:
            process.send_signal(signal.SIGKILL)
        node.wait()
    _, left = psutil.wait_procs(victims, timeout=60)
    assert not left, f"workers outlive their place: {left}"
    return len(victims), round(time.monotonic() - begin, 2)


def until(condition, driver: subprocess.Popen, seconds: float = 180.0) -> bool:
    """Waits for a condition; False when the driver ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if driver.poll() is not None:
            return False
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return True


def events(run: Path, name: str) -> list[dict]:
    """What the run logged under a name."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == name]


def last(text: str) -> str:
    """The last line of what a command said."""
    return text.strip().splitlines()[-1]


def strike_a_study(folder: Path, how: str, hosts: int, trials: int, delay: float, storage: str | None) -> dict:
    """Runs a study on two nodes, strikes in the middle, and returns the figures."""
    run = prepare(folder / "study", folder.name, trials, delay, storage)
    cluster, node = start_cluster(hosts)
    raylets = [psutil.Process(n.all_processes["raylet"][0].process.pid) for n in (cluster.head_node, node)]
    command = [sys.executable, "-m", "tuner", "resume", run, "--ray", cluster.address, "--workers", str(WORKERS)]
    begin = time.monotonic()
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def middle() -> bool:
        beginners = {event["worker"] for event in events(run, "evaluating")[1:]}  # the first prepared the run
        return len(beginners) >= WORKERS and len(events(run, "evaluated")) >= trials // 3

    try:
        if not until(middle, driver):
            return {"status": driver.returncode, "said": last(driver.communicate()[1])}
        done = counted(load_run(run).records)
        victims, seconds = strike(how, raylets, driver)
        if how in ("machine", "raylet"):
            cluster.worker_nodes.discard(node)
        _, errors = driver.communicate(timeout=300)
        seconds_of_study = round(time.monotonic() - begin, 1)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        cluster.shutdown()
    states = Counter(record.state for record in load_run(run).records)
    tally = Tally(kills=1, studies=1)
    audit(run, trials, tally)
    return {
        "status": driver.returncode,
        "said": last(errors) if driver.returncode else "",
        "done_before": done,
        "victims": victims,
        "seconds_to_end": seconds,
        "replaced": len(events(run, "worker died")),
        "states_after": dict(states),
        "trials": counted(load_run(run).records),
        **asdict(tally),
        "seconds": seconds_of_study,
    }


def main() -> None:
    """Runs itself again within a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=("machine", "raylet", "sigterm", "sigkill"), default="machine")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.2)
    parser.add_argument("--storage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not os.environ.get(_INSIDE):
        if not (network := own_network()):
            parser.error("no network namespace can be made here (unshare, ip)")
        with (
            private_postgres(on_socket=True) if options.postgres else nullcontext() as storage
        ):  # its socket is seen from within, too
            command = [*network, sys.executable, __file__, *sys.argv[1:]]
            command += ["--storage", storage] if storage else []
            sys.exit(subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as scratch:  # Ray's sockets need a short path
        os.environ |= {"RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        (Path(scratch) / "ray").mkdir()
        folder = Path(scratch) / Path(scratch).name
        found = strike_a_study(folder, options.how, options.hosts, options.trials, options.delay, options.storage)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
