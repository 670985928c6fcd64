"""How long steps report: a title, a total, and a callback that takes the number done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from search_spaces.limits import renew

#: Opens a step: ``with steps("calibration", 128) as done: done(1)``. A total of 1 is a step that cannot tell how far it
#: is; one of 0 a step that is worth a word only where it takes long.
Steps = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

#: Seconds between two lines of a step where stderr is no terminal.
LINE_SECONDS = 10.0


@contextmanager
def silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step that shows nothing."""
    yield lambda done: None


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step with a progress bar and its ETA on stderr; where that is no terminal a line now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        step = _Step(title, total)
        if total:
            console.print(step.title, highlight=False, soft_wrap=True)
        with every(LINE_SECONDS, lambda: console.print(step.line(), highlight=False, soft_wrap=True)):
            yield step.done
        return
    many = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) if total > 1 else (TimeElapsedColumn(),)
    with Progress(TextColumn("{task.description}"), *many, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total or None)

        def show(done: int) -> None:
            renew()
            progress.update(task, completed=done)

        yield show
    if total:
        console.print(f"{title}: {total} done" if total > 1 else f"{title}: done", highlight=False)


@contextmanager
def every(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` every so many seconds for as long as the block runs; never for a block that is quicker."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds):
            tell()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def duration(seconds: float | None) -> str:
    """Formats seconds as ``1 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class _Step:
    """How far a step is, in words."""

    def __init__(self, title: str, total: int) -> None:
        self.title = f"{title}: {total}" if total > 1 else title
        self._name, self._total, self._count = title, total, 0
        self._started = time.monotonic()

    def done(self, count: int) -> None:
        """So many of the total are done."""
        renew()
        self._count = count

    def line(self) -> str:
        """A line for now."""
        spent = time.monotonic() - self._started
        if self._total <= 1 or not self._count:
            of = f"0 of {self._total}, " if self._total > 1 else ""
            return f"{self._name}: {of}{duration(spent)} so far"
        left = spent / self._count * max(self._total - self._count, 0)
        return f"{self._name}: {self._count} of {self._total}, about {duration(left)} left"
