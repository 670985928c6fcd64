"""Where in the device's memory an engine lies: it is loaded several times, and the fastest place is kept.

An engine's time depends on where its memory happens to lie, and stays the same as long as it lies there: of five places
the slowest took 0.2 to 2 % longer than the fastest (16 engines of yolov8n on an H100; every engine report of a run has
its `place_spread`). A place can only slow an engine down, so the fastest of a few is what repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from objectives.runners.runner import DeviceTimed

#: Places that are tried; all of them, and what settles the device, take about a second together.
PLACES = 5
_ROUNDS = 4


class Placeable(DeviceTimed, Protocol):
    """A runner that times itself and can be loaded again."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(N, 3, H, W)``."""


Loaded = TypeVar("Loaded", bound=Placeable)


@dataclass(frozen=True)
class Placed(Generic[Loaded]):
    """A runner at the fastest of the places that were tried.

    Attributes:
        runner: Active.
        spread: Time at the slowest place / time at this one; 1 where memory sufficed for one place only.
    """

    runner: Loaded
    spread: float


@contextmanager
def fastest_place(
    load: Callable[[], AbstractContextManager[Loaded]], settle: Callable[[], None], places: int = PLACES
) -> Iterator[Placed[Loaded]]:
    """Loads a runner several times and keeps the fastest. Hold the device alone meanwhile.

    All lie in memory at once, or the next would be loaded to where the last one lay. Each is timed in bursts that take
    turns, and its fastest burst counts. If memory ends, those that were loaded are compared.

    Args:
        load: Loads it anew; raises MemoryError where the device's memory does not suffice.
        settle: Brings the device to where it times what is loaded as it will time it from then on; raises MemoryError
            likewise.
        places: How often.

    Raises:
        MemoryError: It cannot be loaded and settled even once.
    """
    with ExitStack() as kept:
        with ExitStack() as others:
            loaded: list[tuple[Loaded, ExitStack]] = []
            for _ in range(places):
                own = ExitStack()
                try:
                    runner = own.enter_context(load())
                except MemoryError:
                    if not loaded:
                        raise
                    break
                others.push(own)
                loaded.append((runner, own))
            _settle(settle, loaded)
            times = [np.inf] * len(loaded)
            if len(loaded) > 1:
                bursts = [_burst(runner) for runner, _ in loaded]
                for _ in range(_ROUNDS):
                    times = [min(best, burst()) for best, burst in zip(times, bursts, strict=True)]
            first = int(np.argmin(times))
            chosen, own = loaded[first]
            kept.push(own.pop_all())
        yield Placed(chosen, max(times) / times[first] if len(loaded) > 1 else 1.0)


def _settle(settle: Callable[[], None], loaded: list[tuple[Loaded, ExitStack]]) -> None:
    """Settles the device; where its memory does not suffice, the last that was loaded makes room."""
    while True:
        try:
            return settle()
        except MemoryError:
            if len(loaded) == 1:
                raise
            loaded.pop()[1].close()


def _burst(runner: Placeable) -> Callable[[], float]:
    """Median seconds of the later inferences of one burst; the first quarter settles the device's caches."""
    launch = runner.launcher(np.zeros(runner.input_shape, np.float32))

    def run() -> float:
        tickets = [launch() for _ in range(runner.burst)]
        return float(np.median([ticket() for ticket in tickets][runner.burst // 4 :]))

    return run
