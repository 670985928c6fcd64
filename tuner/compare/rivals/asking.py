"""Asks rivals for their models, and scores and times each as the run's own schemes are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from objectives.scores import Failure
from search_spaces.errors import InputError
from tuner.compare.baselines import add_baseline, keep, open_scored
from tuner.compare.rivals.registry import RIVALS
from tuner.compare.rivals.rival import Question, Rival
from tuner.search.records import BaselineOutcome, FailedBaseline
from tuner.study.inputs import read_inputs
from tuner.terminal.progress import Steps, silent


def ask_rivals(path: Path, asked: Sequence[str], images: int, steps: Steps = silent) -> list[BaselineOutcome]:
    """Has every rival make its model, measures it, and keeps what came of it among the run's baselines.

    What a tool or the runtime refuses is a value, and the next rival has its turn.

    Args:
        path: The run.
        asked: ``NAME`` or ``NAME:ARGUMENT`` each.
        images: Calibration images, the first of the run's list.
        steps: Shows progress.

    Returns:
        One outcome per rival, in their order.

    Raises:
        InputError: A rival, its argument or what it needs of the study is none; then nothing was run.
        RuntimeUnavailable: The packages of one are missing.
    """
    if not asked:
        raise InputError(f"rivals: name at least one of {', '.join(RIVALS.names())}")
    rivals = {one.title: one for one in map(_rival, asked)}
    loaded = open_scored(path)
    question = Question(read_inputs(loaded.config), loaded.run, images, steps)
    for rival in rivals.values():
        rival.check(question)
    return [_measured(path, rival, question) for rival in rivals.values()]


def _rival(asked: str) -> Rival:
    name, _, argument = asked.partition(":")
    return RIVALS.get(name)(argument)


def _measured(path: Path, rival: Rival, question: Question) -> BaselineOutcome:
    folder = question.run.path / "baselines" / rival.folder
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return add_baseline(path, rival.answer(question, folder), rival.title, question.steps)
    except InputError as error:
        failed = FailedBaseline(rival.title, Failure("error", str(error)))
    keep(path, failed)
    return failed
