"""What is known of a run that has not ended: its front and report so far, and what became of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.layers import Layer
from tuner.results.front_files import write_front
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.reporting import write_report_of
from tuner.search.evaluating import seconds_left
from tuner.search.records import TrialRecord
from tuner.search.trials import BLOCKED, INTERRUPTED, UNSTABLE, counted
from tuner.terminal.progress import duration

#: What kinds of failures mean for the run; any other one is explained by its first message.
_MEANINGS = {
    INTERRUPTED: "the run ended meanwhile; queued again",
    BLOCKED: "held what the target cannot build; queued again without it",
    UNSTABLE: "no steady latency on this machine",
}


def write_so_far(path: Path, layers: Sequence[Layer] | None = None) -> str:
    """Writes front and report of the trials that are over, as the search measured them.

    Args:
        path: The run folder.
        layers: Of its model; read from the model file where not given.

    Returns:
        What was written, in a line.
    """
    try:
        return _written(path, layers)
    except Exception as error:  # a full disk must not hide why the run ends
        return f"front and report so far could not be written ({error})"


def _written(path: Path, layers: Sequence[Layer] | None) -> str:
    try:
        loaded = load_run(path)
    except InputError:
        return "nothing is scored yet"
    done = counted(loaded.records)
    if loaded.reference is None or not loaded.front:
        return f"{done} trials are done, and no scheme stands in the front yet"
    write_front(loaded.run, loaded.config.name, loaded.front, loaded.reference, loaded.config.objective_set)
    write_report_of(loaded, layers)
    return (
        f"front and report of the {done} trials that are done, not measured again yet: {path / 'front.md'}, "
        f"{path / 'report.html'}"
    )


def first_front(path: Path, layers: Sequence[Layer], total: int) -> str:
    """Writes front and report of the first schemes; returns what a user can do with them, empty where nothing is left.

    Args:
        path: The run folder.
        layers: Of its model.
        total: Trials asked for.
    """
    write_so_far(path, layers)
    loaded = load_run(path)
    left = total - counted(loaded.records)
    named = next((m.record.name for m in loaded.front if not m.record.allocation.unquantized), None)
    if named is None or left <= 0:
        return ""
    seconds = seconds_left(loaded.trials.study, left)
    more = f"{left} more trials" + (f", about {duration(seconds)}" if seconds else "")
    return (
        f"first front: {path / 'front.md'}; Ctrl-C ends here and keeps it, "
        f"`tuner export {path} --trial {named} --out DIR` "
        f"ships it; else the search prepares itself and goes on ({more})"
    )


def not_begun(loaded: LoadedRun) -> str:
    """That the sampler has not proposed anything yet, where it is so and it still could; else empty."""
    records = loaded.records
    done = counted(records)
    if not done or any(record.origin == "sampler" for record in records) or loaded.trials.exhausted():
        return ""
    seeds = sum(record.state == "WAITING" for record in records) + done
    more = f"`tuner resume {loaded.run.path} --trials {max(2 * seeds, seeds + 20)}` goes on"
    left = f", and {seeds - done} wait" if seeds > done else ""
    return f"only seeds ran ({done} trials{left}): the search itself has not begun; {more}"


def failures(records: Sequence[TrialRecord]) -> list[str]:
    """A line for each kind of failure: how often, and what it means."""
    found = [record.failure for record in records if record.failure is not None]
    lines = []
    for kind, count in Counter(failure.kind for failure in found).most_common():
        first = next(failure for failure in found if failure.kind == kind)
        meaning = _MEANINGS.get(kind) or f"{first.message}"
        also = " (the first one's message)" if kind not in _MEANINGS and count > 1 else ""
        lines.append(f"{count} {kind}: {meaning}{also}")
    unnamed = sum(record.state == "FAIL" and record.failure is None for record in records)
    if unnamed:
        lines.append(f"{unnamed} without a reason: another program than tuner ended them")
    return lines
