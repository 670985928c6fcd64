"""The device lock between real processes: shared work overlaps, timing is alone, and nobody starves."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from objectives.devices.gpu import foreign
from objectives.devices.lock import device_lock, device_users, give_way
from search_spaces.errors import InputError


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def worker(log: str, number: int, rounds: int) -> None:
    """Evaluates and times as a tuner worker does, and writes down when."""
    for _ in range(rounds):
        with device_lock("gpu", shared=True):
            note(log, number, "evaluate", 0.02)
            with device_lock("gpu"):
                note(log, number, "time", 0.01)


def note(log: str, number: int, what: str, seconds: float) -> None:
    begin = time.monotonic()
    time.sleep(seconds)
    with Path(log).open("a") as file:
        file.write(f"{number} {what} {begin} {time.monotonic()}\n")


def test_timing_is_alone_and_evaluations_overlap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = str(tmp_path / "log")
    processes = [context.Process(target=worker, args=(log, number, 12)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    spans = [line.split() for line in Path(log).read_text().splitlines()]
    assert len(spans) == 2 * 3 * 12
    stretches = [(n, what, float(begin), float(end)) for n, what, begin, end in spans]
    overlaps = 0
    for n, what, begin, end in stretches:
        for other, kind, start, stop in stretches:
            if n != other and begin < stop and start < end:
                assert what == kind == "evaluate"
                overlaps += 1
    assert overlaps > 0


def busy(stop: str) -> None:
    while not Path(stop).exists():
        with device_lock("gpu", shared=True):
            time.sleep(0.03)


def test_a_stream_of_evaluations_does_not_keep_a_measurement_waiting(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stop = tmp_path / "stop"
    processes = [context.Process(target=busy, args=(str(stop),)) for _ in range(3)]
    for process in processes:
        process.start()
    try:
        while len(device_users("gpu")) < 3:
            time.sleep(0.01)
        waits = []
        for _ in range(10):
            begin = time.monotonic()
            with device_lock("gpu", timeout=5):
                waits.append(time.monotonic() - begin)
        assert max(waits) < 2
        users = device_users("gpu")
        assert users == {os.getpid(), *(process.pid for process in processes)}
        assert foreign([process.pid for process in processes], users) == ()
    finally:
        stop.touch()
        for process in processes:
            process.join(10)
    assert device_users("gpu") == {os.getpid()}


def build(log: str, stop: str) -> None:
    """A build that takes as long as it is let, and gives way between its steps."""
    with device_lock("gpu", shared=True):
        while not Path(stop).exists():
            give_way("gpu")
            note(log, 0, "build", 0.02)


def test_a_long_build_gives_way_to_measurements_and_rests_meanwhile(tmp_path: Path) -> None:
    stop, log = tmp_path / "stop", str(tmp_path / "log")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=build, args=(log, str(stop))) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        while len(device_users("gpu")) < 2:
            time.sleep(0.01)
        alone = []
        for _ in range(5):
            with device_lock("gpu", timeout=5):
                begin = time.monotonic()
                time.sleep(0.1)
                alone.append((begin, time.monotonic()))
            time.sleep(0.05)
    finally:
        stop.touch()
        for process in processes:
            process.join(10)
    steps = [tuple(map(float, line.split()[2:])) for line in Path(log).read_text().splitlines()]
    assert any(end < alone[0][0] for _, end in steps) and any(start > alone[-1][1] for start, _ in steps)
    assert not [1 for start, end in steps for begin, over in alone if start < over and begin < end]


def test_who_does_not_share_a_device_has_no_way_to_give() -> None:
    give_way("gpu")
    assert device_users("gpu") == frozenset()  # nothing was taken that had not been held
    with device_lock("gpu"):
        give_way("gpu", timeout=0.0)
        outside = "from objectives.devices.lock import device_lock\nwith device_lock('gpu', timeout=0.2): pass"
        found = subprocess.run([sys.executable, "-c", outside], check=False, capture_output=True, text=True)
        assert "Timeout" in found.stderr  # it is still held alone


def user(stop: str) -> None:
    with device_lock("gpu", shared=True):
        while not Path(stop).exists():
            time.sleep(0.01)


def test_whoever_looks_while_others_come_forgets_none_of_them(tmp_path: Path) -> None:
    """A file that was there before its content was taken for one of a dead process, and removed."""
    context, stop = multiprocessing.get_context("fork"), tmp_path / "stop"
    with device_lock("gpu", shared=True):
        processes = [context.Process(target=user, args=(str(stop),)) for _ in range(40)]
        for process in processes:
            process.start()
            device_users("gpu")
        try:
            wanted, end = {process.pid for process in processes}, time.monotonic() + 60
            while not wanted <= device_users("gpu"):
                assert time.monotonic() < end, "some were forgotten"
                time.sleep(0.01)
        finally:
            stop.touch()
            for process in processes:
                process.join(60)


def test_a_dead_user_is_forgotten(tmp_path: Path) -> None:
    with device_lock("gpu"):
        pass
    (tmp_path / "tuner-gpu.users" / "1").write_text("0.5")  # a later process has that id
    (tmp_path / "tuner-gpu.users" / "999999999").write_text("1.0")
    assert device_users("gpu") == {os.getpid()}


@pytest.mark.parametrize("kind", ["lock", "turnstile", "users"])
def test_links_that_another_user_left_in_the_temporary_folder_are_not_followed(tmp_path: Path, kind: str) -> None:
    """The lock made files, opened them to everybody and removed what was in a folder, wherever a link led."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "kept.txt").write_text("mine")
    (outside / "kept.txt").chmod(0o600)
    (tmp_path / f"tuner-gpu.{kind}").symlink_to(outside if kind == "users" else outside / "kept.txt")
    with pytest.raises(InputError, match=f"tuner-gpu.{kind}: is a link where a f"), device_lock("gpu"):
        pass
    if kind == "users":
        with pytest.raises(InputError, match="is a link where a folder belongs; remove it"):
            device_users("gpu")
    assert [path.name for path in outside.iterdir()] == ["kept.txt"]
    assert outside.stat().st_mode & 0o777 == 0o700 and (outside / "kept.txt").stat().st_mode & 0o777 == 0o600


def test_a_users_name_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    (tmp_path / "tuner-gpu.users").mkdir()
    (tmp_path / "tuner-gpu.users" / str(os.getpid())).symlink_to(tmp_path / "kept.txt")
    with device_lock("gpu"):
        assert device_users("gpu") == {os.getpid()}
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_ids_of_another_namespace_are_ours_as_long_as_they_are_no_more_than_we_are() -> None:
    gone = lambda pid: False  # noqa: E731
    assert foreign([70001, 70002], {5, 6}, gone, hidden=2) == ()
    assert foreign([70001, 70002, 70003], {5, 6}, gone, hidden=2) == (70001, 70002, 70003)
