"""How long steps report: a title, a total, and a callback that takes the number done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from search_spaces.limits import renew

#: Opens a step: ``with steps("calibration", 128) as done: done(1)``.
Steps = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step that shows nothing."""
    yield lambda done: None


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step with a progress bar and its ETA on stderr; two plain lines where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{title}: {total}", highlight=False)
        yield lambda done: renew()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)

        def show(done: int) -> None:
            renew()
            progress.update(task, completed=done)

        yield show
    console.print(f"{title}: {total} done", highlight=False)
