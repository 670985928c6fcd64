"""Processes that answer questions, and how they end."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from objectives.devices.lock import DeviceTimeout
from objectives.devices.waiting import Waiting
from search_spaces.limits import MEMORY_VARIABLE
from search_spaces.spawned import Descriptor, NoAnswer, Spawned, calling, without_main

# What the children do lies in modules that can be imported there by name: Python's own.
HOLD = "x = b'1' * (1 << 30); import time; time.sleep(60)"


def writing(number: int):
    return functools.partial(os.write, number)


def redirected(number: int):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return functools.partial(os.write, number)


@pytest.fixture
def spawned() -> Iterator[Spawned]:
    with Spawned("building", calling) as process:
        yield process


def test_one_process_answers_until_it_is_closed(spawned: Spawned) -> None:
    first = spawned.ask(os.getpid, seconds=60)
    assert first != os.getpid() and spawned.ask(os.getpid, seconds=60) == first
    spawned.close()
    assert not psutil.pid_exists(first) and spawned.ask(os.getpid, seconds=60) != first


def test_what_the_work_raises_is_raised_here(spawned: Spawned) -> None:
    with pytest.raises(ZeroDivisionError):
        spawned.ask(divmod, 1, 0, seconds=60)
    assert spawned.ask(divmod, 7, 2, seconds=60) == (3, 1)


def test_a_crash_a_hang_and_an_exit_are_values(spawned: Spawned) -> None:
    pid = spawned.ask(os.getpid, seconds=60)
    with pytest.raises(NoAnswer, match="the building process was ended by SIGSEGV") as crash:
        spawned.ask(os.kill, pid, signal.SIGSEGV, seconds=60)
    with pytest.raises(NoAnswer, match="exited with 7"):
        spawned.ask(os._exit, 7, seconds=60)
    spawned.ask(os.getpid, seconds=60)
    with pytest.raises(NoAnswer, match=r"no result after 0 s; the child was ended") as hang:
        spawned.ask(time.sleep, 60, seconds=0.3)
    assert (crash.value.kind, hang.value.kind) == ("crash", "timeout")
    assert spawned.ask(len, "abc", seconds=60) == 3


def test_memory_beyond_the_limit_ends_it(spawned: Spawned, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned.ask(os.getpid, seconds=60)
    monkeypatch.setenv(MEMORY_VARIABLE, "0.5")
    with pytest.raises(NoAnswer, match=r"the building process took .* TUNER_MEMORY_GIB") as found:
        spawned.ask(exec, HOLD, seconds=60)
    assert found.value.kind == "memory"


def test_it_hears_no_signal_of_the_terminal(spawned: Spawned) -> None:
    pid = spawned.ask(os.getpid, seconds=60)
    for kind in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, kind)
    assert spawned.ask(os.getpid, seconds=60) == pid


def test_an_open_file_arrives_whatever_the_temporary_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket there would have a path beyond what the system takes."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    reader, writer = os.pipe()
    with Spawned("building", writing, lambda: (Descriptor(writer),)) as process:
        process.ask(b"heard", seconds=60)
    assert os.read(reader, 9) == b"heard"
    os.close(reader)
    os.close(writer)


def test_a_process_keeps_the_stderr_that_it_was_given_beside_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    with Spawned("building", redirected, lambda: (Descriptor(2),)) as process:
        process.ask(b"heard", seconds=60)
    assert capfd.readouterr().err == "heard"


def test_it_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """The queue of a pool would keep it waiting for ever: it holds both ends of it."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\nfrom search_spaces.spawned import Spawned, calling\n"
        "print(Spawned('building', calling).ask(os.getpid, seconds=60), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    psutil.wait_procs([psutil.Process(int(done.stdout))] if psutil.pid_exists(int(done.stdout)) else [], timeout=30)
    assert not psutil.pid_exists(int(done.stdout)), "it lives on"


def test_a_wait_for_a_device_that_was_given_up_comes_back_as_it_was(tmp_path: Path) -> None:
    error = DeviceTimeout.of(Waiting("cpu", tmp_path / "cpu.lock"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error) and "cpu.lock" in str(error)


def test_what_is_hidden_by_two_threads_is_shown_again() -> None:
    names = sys.modules["__main__"].__dict__
    before = {name: names.get(name, "none") for name in ("__file__", "__spec__")}
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with without_main():
            first_in.set()
            second_in.wait(0.3)  # it must not come
        first_out.set()

    def second() -> None:
        first_in.wait()
        with without_main():
            second_in.set()
            first_out.wait()
            assert names["__spec__"] is None

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(first), threads.submit(second)]:
            done.result()
    assert {name: names.get(name, "none") for name in before} == before


def test_a_spawned_process_does_not_know_the_main_module(spawned: Spawned) -> None:
    file = "__import__('sys').modules['__main__'].__dict__.get('__file__')"
    assert spawned.ask(eval, file, seconds=60) is None
