"""The main module is hidden from spawned processes, and back afterwards, whatever else spawns meanwhile."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from search_spaces.spawned import SpawnedPool, without_main


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


def test_a_spawned_process_does_not_know_the_main_module() -> None:
    with SpawnedPool() as pool:
        assert pool.submit(eval, "__import__('sys').modules['__main__'].__dict__.get('__file__')").result() is None
