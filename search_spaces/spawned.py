"""Processes that start without the program that starts them: a user's script must not run again in each of them."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_hidden = threading.RLock()  # two threads that hid it at once would leave it hidden
_SHOWN = ("__file__", "__spec__")  # what `multiprocessing.spawn` finds the main module by


@contextmanager
def without_main() -> Iterator[None]:
    """Hides the main module from processes that multiprocessing spawns inside the block.

    Spawning imports it again in every child: a script that calls us without ``if __name__ == "__main__"`` would start
    over there. What our children run lies in modules of ours.
    """
    names = sys.modules["__main__"].__dict__
    with _hidden:
        kept = {name: names[name] for name in _SHOWN if name in names}
        names.update(dict.fromkeys(_SHOWN))
        try:
            yield
        finally:
            for name in _SHOWN:
                names.pop(name, None)
            names.update(kept)


class SpawnedPool(ProcessPoolExecutor):
    """One spawned process that does what it is given, in order."""

    def __init__(self) -> None:
        super().__init__(1, mp_context=multiprocessing.get_context("spawn"))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As the executor's; the process may start here."""
        with without_main():
            return super().submit(fn, *args, **kwargs)
