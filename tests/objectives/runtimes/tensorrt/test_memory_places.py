"""Engines at places in memory: of several the fastest is kept, and nothing else stays loaded."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from objectives.runtimes.tensorrt.memory_places import fastest_place


class Engine:
    """A device-timed runner whose place tells its time."""

    input_shape = (1, 3, 8, 8)
    burst = 8
    method = "cuda graph"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls = seconds, 0

    def launcher(self, image: np.ndarray):
        def launch():
            self.calls += 1
            settling = self.calls % self.burst in (1, 2)  # a burst's begin is slow, and must not count
            return lambda: 1.0 if settling else self.seconds

        return launch


class Memory:
    """Places of a device, which holds at most `room` engines, and settles with at most `quiet` of them."""

    def __init__(self, seconds: list[float], room: int = 99, quiet: int = 99) -> None:
        self.seconds, self.room, self.quiet = iter(seconds), room, quiet
        self.loaded: list[float] = []
        self.settled: list[list[float]] = []

    def settle(self) -> None:
        if len(self.loaded) > self.quiet:
            raise MemoryError("no room to settle")
        self.settled.append(list(self.loaded))

    @contextmanager
    def load(self) -> Iterator[Engine]:
        if len(self.loaded) == self.room:
            raise MemoryError("the GPU is out of memory")
        engine = Engine(next(self.seconds))
        self.loaded.append(engine.seconds)
        try:
            yield engine
        finally:
            self.loaded.remove(engine.seconds)


def test_the_fastest_place_is_kept_and_the_others_are_freed() -> None:
    memory = Memory([0.52, 0.50, 0.48, 0.49, 0.51])
    with fastest_place(memory.load, memory.settle) as placed:
        assert placed.runner.seconds == 0.48
        assert placed.spread == pytest.approx(0.52 / 0.48)
        assert memory.loaded == [0.48]
    assert memory.loaded == []


def test_all_lie_in_memory_at_once_as_far_as_it_reaches() -> None:
    memory = Memory([0.52, 0.50, 0.48], room=2)
    with fastest_place(memory.load, memory.settle) as placed:
        assert placed.runner.seconds == 0.50 and memory.loaded == [0.50]


def test_one_place_is_taken_as_it_is() -> None:
    memory = Memory([0.52], room=1)
    with fastest_place(memory.load, memory.settle) as placed:
        assert placed.spread == 1.0 and placed.runner.calls == 0
        assert memory.settled == [[0.52]]  # nothing was compared, yet it will be timed


def test_the_device_settles_with_everything_loaded() -> None:
    memory = Memory([0.52, 0.50, 0.48, 0.49, 0.51])
    with fastest_place(memory.load, memory.settle):
        assert memory.settled == [[0.52, 0.50, 0.48, 0.49, 0.51]]


def test_places_make_room_to_settle() -> None:
    memory = Memory([0.52, 0.50, 0.48], room=3, quiet=2)
    with fastest_place(memory.load, memory.settle, places=3) as placed:
        assert placed.runner.seconds == 0.50
        assert memory.settled == [[0.52, 0.50]] and memory.loaded == [0.50]


def test_no_room_to_settle_at_all_is_an_error() -> None:
    memory = Memory([0.52], quiet=0)
    with pytest.raises(MemoryError, match="no room to settle"), fastest_place(memory.load, memory.settle, places=1):
        raise AssertionError("it would be timed unsettled")
    assert memory.loaded == []


def test_no_room_at_all_is_an_error() -> None:
    memory = Memory([], room=0)
    with pytest.raises(MemoryError, match="out of memory"), fastest_place(memory.load, memory.settle):
        raise AssertionError("nothing could be loaded")


def test_a_failure_at_a_later_place_frees_what_was_loaded() -> None:
    memory = Memory([0.52, 0.50])  # the third place ends the iterator: any other error
    with pytest.raises((RuntimeError, StopIteration)), fastest_place(memory.load, memory.settle):
        raise AssertionError("it failed")
    assert memory.loaded == []
