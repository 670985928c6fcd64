"""What a running study shows on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from objectives.objective import Objective, milliseconds
from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from tuner.search.front import drop
from tuner.search.records import NOISY_MARK, FrontMember, TrialRecord, noise_of
from tuner.terminal import units
from tuner.terminal.progress import LINE_SECONDS, duration, every

_ROWS = 8
_TERMINAL_SECONDS = 1.0
#: Of a table where stderr is no terminal and has no width.
_FILE_COLUMNS = 160


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Attributes:
        name: Study name.
        done: Trials that count.
        total: Trials asked for.
        seconds_left: Estimate; None before there is one.
        last: The trial that ended last.
        front: The front so far.
        reference: Scores of the unquantized model.
        objectives: Of the study.
    """

    name: str
    done: int
    total: int
    seconds_left: float | None
    last: TrialRecord | None
    front: Sequence[FrontMember]
    reference: Scores
    objectives: ObjectiveSet


class LiveView:
    """Shows a study while it runs."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = None

    @contextmanager
    def waiting(self, what: str | Callable[[], str]) -> Iterator[None]:
        """Says now and then that something takes its time, on a terminal below the table.

        Args:
            what: In words, or what tells it.
        """
        started = time.monotonic()

        def tell() -> None:
            words = what if isinstance(what, str) else what()
            text = f"{words}, {duration(time.monotonic() - started)} so far"
            if self._live is None:
                self.message(text)
            elif self._progress is not None:
                shown = Group(_table(self._progress), Text(_line(self._progress)), Text(text, style="dim"))
                self._live.update(shown, refresh=True)

        with every(LINE_SECONDS if self._live is None else _TERMINAL_SECONDS, tell):
            yield

    def message(self, text: str) -> None:
        """Prints one line."""
        self._console.print(Text(text), soft_wrap=True)

    def table(self) -> None:
        """Prints the front as it stands; on a terminal the last table stays by itself."""
        if self._progress is not None and not self._console.is_terminal:
            Console(stderr=True, width=_FILE_COLUMNS).print(_table(self._progress))

    def update(self, progress: Progress) -> None:
        """Shows the state after a trial."""
        self._progress = progress
        if self._live is not None:
            self._live.update(Group(_table(progress), Text(_line(progress))), refresh=True)
        elif progress.last is not None:
            self.message(_line(progress))


def describe(record: TrialRecord, accuracy: Objective) -> str:
    """One trial in a few words."""
    if record.screened is not None:
        look = record.screened.look
        change = f"{accuracy.brief} {units.change(look.difference)} points"
        return (
            f"trial {record.number} ({record.origin}): screened, {change} "
            f"to one that costs no more, on {look.images} of {look.total} images"
        )
    if record.scores is None:
        failure = record.failure
        return f"trial {record.number} ({record.origin}): {failure.kind if failure else record.state}"
    scores = record.scores
    return (
        f"trial {record.number} ({record.origin}): {accuracy.brief} {units.accuracy(accuracy.value(scores))}, "
        + (f"{milliseconds(scores.latency_ms)} ms{_noise(scores)}, " if scores.latency else "")
        + f"{units.mib(scores.size.weight_bytes)} MiB"
    )


def _noise(scores: Scores) -> str:
    latency = scores.latency
    noise = noise_of(latency, scores.latency_ms / latency.ratio) if latency else ""
    return f" ({noise})" if noise else ""


def _line(progress: Progress) -> str:
    last = describe(progress.last, progress.objectives.maximised) if progress.last else "starting"
    left = duration(progress.seconds_left)
    return f"{progress.done}/{progress.total} trials, {left} left, front {len(progress.front)}; {last}"


def _table(progress: Progress) -> Table:
    table = Table(title=f"{progress.name}: front", title_justify="left")
    timed = ["ms", "speed-up"] if progress.reference.latency else []
    accuracy, further = progress.objectives.maximised, progress.objectives.further
    titles = [objective.title for objective in further]
    for name in ("trial", f"{accuracy.label}, points", "change, points", *timed, "MiB", "bits", *titles, "formats"):
        table.add_column(name, justify="left" if name == "formats" else "right")
    step = max(1, -(-len(progress.front) // _ROWS))
    for index, member in enumerate(progress.front):
        scores = member.record.scores
        if scores is None or (index % step and not member.recommended):
            continue
        speed = progress.reference.latency_ms / scores.latency_ms if scores.latency_ms else 0.0
        table.add_row(
            member.record.name,
            units.accuracy(accuracy.value(scores)),
            units.change(-drop(member, progress.reference, accuracy)),
            *([milliseconds(scores.latency_ms) + NOISY_MARK * member.noisy, units.speedup(speed)] if timed else []),
            units.mib(scores.size.weight_bytes),
            units.bits(scores.size.average_weight_bits),
            *(objective.text(objective.value(scores)) for objective in further),
            member.record.allocation.summary(),
            style="bold green" if member.recommended else None,
        )
    return table
