"""Times schemes once more, in rounds, so that a drift of the machine hits all alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated

from pydantic import Field, FiniteFloat

from objectives.evaluation.evaluator import Evaluator
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.evaluators import evaluator_settings
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent

ROUNDS = 3
_Ratio = Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True)
class Round:
    """One measurement of one scheme.

    Attributes:
        ratio: Median of its time over the reference's.
        low: Lower end of the 95 % interval of `ratio`; None in older runs.
        high: Its upper end.
        noisy: Whether the machine was.
    """

    ratio: _Ratio
    low: _Ratio | None = None
    high: _Ratio | None = None
    noisy: bool = False


#: Digests of the schemes that more rounds may matter for, by the rounds so far.
Worthwhile = Callable[[Mapping[str, Sequence[Round]]], Collection[str]]


def retime(
    inputs: Inputs, run: RunFolder, allocations: Sequence[Allocation], worthwhile: Worthwhile, steps: Steps = silent
) -> None:
    """Measures the latency of schemes again, unless the run did for all of them.

    Each measurement is paired with the reference as a trial's is. Where a scheme is added, all are timed again: they
    are to be compared with each other.

    Args:
        inputs: The study.
        run: Where the ratios are kept.
        allocations: The schemes.
        worthwhile: Which of them are timed in more rounds than one.
        steps: Shows progress.
    """
    known = read_rounds(run)
    if all(allocation.digest in known for allocation in allocations):
        return
    settings = evaluator_settings(inputs, run, steps)
    assert settings.timing is not None
    if not settings.timing.strict:  # the rounds are the repeats: on a busy machine three of each would take for ever
        settings = replace(settings, timing=replace(settings.timing, attempts=1))
    with Evaluator(settings) as evaluator:

        def time(allocation: Allocation) -> Round | None:
            timed = evaluator.time(allocation)
            if isinstance(timed, Failure):  # the figure of the search stands where all rounds fail
                run.log("not timed again", digest=allocation.digest, failure=timed.kind, message=timed.message)
                return None
            return Round(timed.ratio, timed.ratio_low, timed.ratio_high, timed.noisy)

        found = rounds_of(allocations, time, worthwhile, steps)
    kept = {**known, **found}
    rounds = {digest: [asdict(one) for one in entries] for digest, entries in kept.items()}
    write_durably(run.retimed, json.dumps(rounds))
    ratios = [[one.ratio for one in entries] for entries in found.values() if len(entries) > 1]
    timings = sum(len(entries) for entries in found.values())
    noisy = sum(one.noisy for entries in found.values() for one in entries)
    spread = median(max(entries) / min(entries) - 1 for entries in ratios) if ratios else None
    run.log("timed again", rounds=ROUNDS, schemes=len(found), timings=timings, spread=spread, noisy=noisy)
    if noisy:
        say(f"warning: {noisy} of {timings} timings of the front were noisy; they are kept and marked")


def rounds_of(
    allocations: Sequence[Allocation],
    time: Callable[[Allocation], Round | None],
    worthwhile: Worthwhile,
    steps: Steps = silent,
) -> dict[str, list[Round]]:
    """Times every scheme once, and those that matter `ROUNDS` times.

    After each round it is asked anew who matters, until all who do have their rounds: a scheme that the others leave no
    advantage is not worth the machine's time, and one that comes forward later gets the rounds that it lacks. So every
    figure of a front is of after the search, and those that decide are medians.

    Args:
        allocations: The schemes.
        time: One measurement; None where it failed.
        worthwhile: Who matters.
        steps: Shows progress.

    Returns:
        ``{allocation digest: its rounds}``.
    """
    found: dict[str, list[Round]] = {allocation.digest: [] for allocation in allocations}
    tried = dict.fromkeys(found, 0)
    wanted, turn = list(allocations), 0
    while wanted:
        with steps(f"timing again, round {turn + 1}", len(wanted)) as done:
            # Every other round backwards: who follows whom, and how warm the machine is, averages out.
            for place, allocation in enumerate(wanted if turn % 2 == 0 else wanted[::-1], 1):
                timed = time(allocation)
                tried[allocation.digest] += 1
                if timed is not None:
                    found[allocation.digest].append(timed)
                done(place)
        turn += 1
        matter = worthwhile(found)
        wanted = [each for each in allocations if each.digest in matter and tried[each.digest] < ROUNDS]
    return found


def read_rounds(run: RunFolder) -> dict[str, tuple[Round, ...]]:
    """Returns ``{allocation digest: its rounds}``; empty where nothing was timed again."""
    if not run.retimed.exists():
        return {}
    found = read_json(run.retimed, dict[str, tuple[Round | _Ratio, ...]])  # older runs hold the ratio alone
    return {
        digest: tuple(one if isinstance(one, Round) else Round(one) for one in entries)
        for digest, entries in found.items()
    }
