"""The synthetic parts of a study whose scores are replayed."""

from __future__ import annotations

from pathlib import Path

from objectives.runtimes.replay import ReplayEvaluator, ReplaySettings
from tuner.study.inputs import Inputs


def replay_evaluator(inputs: Inputs) -> ReplayEvaluator:
    """What replays the scores of a study.

    Raises:
        InputError: Its ``runtime.file`` holds no such scores.
    """
    file = inputs.config.runtime.file
    return ReplayEvaluator(inputs.graph.quantizable, ReplaySettings.read(Path(file) if file else None))
