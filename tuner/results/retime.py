"""Times schemes once more, all of them in every round, so that a drift of the machine hits all alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import Annotated

from pydantic import Field, FiniteFloat

from objectives.evaluation.evaluator import Evaluator
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.evaluators import open_evaluator
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json
from tuner.terminal.progress import Steps, silent

ROUNDS = 3


def retime(inputs: Inputs, run: RunFolder, allocations: Sequence[Allocation], steps: Steps = silent) -> None:
    """Measures the latency of schemes in `ROUNDS` rounds, unless the run did for all of them.

    Each measurement is paired with the reference as a trial's is. Where one is added, all are timed again: they are to
    be compared with each other.

    Args:
        inputs: The study.
        run: Where the ratios are kept.
        allocations: The schemes.
        steps: Shows progress.
    """
    known = read_ratios(run)
    if all(allocation.digest in known for allocation in allocations):
        return
    found: dict[str, list[float]] = {allocation.digest: [] for allocation in allocations}
    with open_evaluator(inputs, run, steps) as evaluator, steps("timing again", ROUNDS * len(found)) as done:
        assert isinstance(evaluator, Evaluator)
        for turn in range(ROUNDS):
            # Every other round backwards: who follows whom, and how warm the machine is, averages out.
            order = allocations if turn % 2 == 0 else allocations[::-1]
            for place, allocation in enumerate(order, 1):
                timed = evaluator.time(allocation)
                if isinstance(timed, Failure):  # the figure of the search stands where all rounds fail
                    run.log("not timed again", digest=allocation.digest, failure=timed.kind, message=timed.message)
                else:
                    found[allocation.digest].append(timed.ratio)
                done(turn * len(found) + place)
    write_durably(run.retimed, json.dumps({**known, **found}))
    spread = [max(ratios) / min(ratios) - 1 for ratios in found.values() if ratios]
    run.log("timed again", rounds=ROUNDS, schemes=len(found), spread=median(spread) if spread else None)


def read_ratios(run: RunFolder) -> dict[str, tuple[float, ...]]:
    """Returns ``{allocation digest: median ratio of each round}``; empty where nothing was timed again."""
    if not run.retimed.exists():
        return {}
    return read_json(run.retimed, dict[str, tuple[Annotated[FiniteFloat, Field(gt=0)], ...]])
