"""Where workers are placed: GPUs of this host, resources of a Ray cluster."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import psutil
import pytest

from objectives.devices.gpu import Gpu
from objectives.runtimes.registry import parse_settings
from search_spaces.errors import InputError
from tuner.cli.app import main
from tuner.launch import launch
from tuner.search.worker_locks import serves_hosts
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study
from tuner.workers.local import LocalWorker, spread
from tuner.workers.ray_cluster import RayCluster, foreign_nodes, own_addresses, room_for


def gpu(index: int, name: str = "H200") -> Gpu:
    return Gpu(index, name, f"GPU-{index}", "550", (9, 0), 140_000)


def test_workers_take_turns_on_gpus_of_the_first_ones_model() -> None:
    visible = [gpu(0, "T4"), gpu(1), gpu(2), gpu(3, "T4"), gpu(4)]
    assert [one.index for one in spread(gpu(2), visible, 5)] == [2, 1, 4, 2, 1]
    assert [one.index for one in spread(gpu(0, "T4"), visible, 2)] == [0, 3]
    assert [one.index for one in spread(gpu(0), [gpu(0)], 3)] == [0, 0, 0]


def test_a_worker_sees_its_own_gpu_alone(study_file, tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 2})), tmp_path / "run")
    run.workers.mkdir(exist_ok=True)
    worker = LocalWorker(run.path, run.workers / "worker-0.log", one_gpu=True, gpu="GPU-7")
    found: list[psutil.Process] = []
    while not found and worker.poll() is None:  # for a moment after its start a process has no command line
        found = [p for p in psutil.Process().children() if str(run.path) in p.cmdline()]
    (process,) = found
    assert process.environ()["CUDA_VISIBLE_DEVICES"] == "GPU-7"
    assert process.cmdline()[-2:] == ["--device", "0"]
    assert worker.wait() == 0, RunFolder(run.path).workers.joinpath("worker-0.log").read_text()
    worker.end(0.0)


def test_a_worker_asks_ray_for_a_gpu_or_for_cpus() -> None:
    cpu, tensorrt = parse_settings({"name": "onnxruntime-cpu"}), parse_settings({"name": "tensorrt"})
    assert RayCluster("auto").resources(tensorrt) == {"num_gpus": 1, "num_cpus": 1}
    assert RayCluster("auto", 0.5).resources(tensorrt) == {"num_gpus": 0.5, "num_cpus": 1}
    assert RayCluster("auto", 4).resources(cpu) == {"num_cpus": 4}
    for share, runtime in ((2.0, tensorrt), (0.0, cpu), (1.5, cpu), (float("nan"), cpu), (float("inf"), cpu)):
        with pytest.raises(InputError, match="--ray-share"):
            RayCluster("auto", share).resources(runtime)


def test_room_is_counted_node_by_node() -> None:
    nodes = [{"Resources": {"CPU": 3.0, "GPU": 2.0}}, {"Resources": {"CPU": 1.0}}, {"Resources": {}}]
    assert room_for(nodes, {"num_cpus": 1}) == 4
    assert room_for(nodes, {"num_cpus": 2}) == 1
    assert room_for(nodes, {"num_cpus": 1, "num_gpus": 1}) == 2
    assert room_for(nodes, {"num_cpus": 1, "num_gpus": 0.1}) == 3  # 20 by the GPUs, 3 by the CPUs
    assert room_for(nodes[1:], {"num_cpus": 1, "num_gpus": 1}) == 0


def test_nodes_of_other_hosts_are_told_apart() -> None:
    own = own_addresses()
    assert "127.0.0.1" in own
    nodes = [{"NodeManagerAddress": address} for address in (*own, "203.0.113.9", "203.0.113.9")]
    assert foreign_nodes(nodes, own) == ["203.0.113.9"]
    assert serves_hosts("postgresql+psycopg://db/x") and not serves_hosts("mysql://db/x")
    assert not serves_hosts(None) and not serves_hosts("sqlite:////tmp/x.db")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed here")
def test_without_the_package_the_extra_is_named(study_file, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", ["tuner", "run", str(study_file()), "--run", f"{tmp_path / 'r'}", "--ray", "auto"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3 and "pip install tuner[ray]" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()
