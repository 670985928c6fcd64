"""What a trial of Optuna says of its result in plain words."""

from __future__ import annotations

from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from search_spaces.allocation import Allocation
from tuner.terminal.units import MIB


def plain_facts(
    scores: Scores, allocation: Allocation, objectives: ObjectiveSet, reference: Scores | None
) -> dict[str, str | float | bool]:
    """User attributes of a complete trial: figures as the search saw them, in the units that reports use.

    Names are letters, spaces and hyphens alone: trackers that take them over allow no more.

    Args:
        scores: Of the trial.
        allocation: Its scheme.
        objectives: Of the study.
        reference: Scores of the unquantized model; None where they are not known.
    """
    goal = objectives.maximised
    facts: dict[str, str | float | bool] = {"formats": allocation.words()}
    if scores.latency is not None:
        facts["speed-up"] = round(1 / scores.latency.ratio, 3) if scores.latency.ratio > 0 else 0.0
        if scores.latency.noisy:
            facts["noisy"] = True
    if reference is not None:
        facts[f"{goal.brief} change in points"] = round(100 * (goal.value(scores) - goal.value(reference)), 2)
    facts["weights in MiB"] = round(scores.size.weight_bytes / MIB, 3)
    facts["bits per weight"] = round(scores.size.average_weight_bits, 2)
    return facts
