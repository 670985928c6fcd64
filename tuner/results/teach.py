"""Keeps for later studies what this one learned of its device and its model."""

from __future__ import annotations

from objectives.scores import Scores
from tuner.prepare.prepared import PreparedStudy
from tuner.results.loaded import LoadedRun
from tuner.samplers.history import read_history
from tuner.samplers.problem import Problem
from tuner.search.problem import own_problem
from tuner.terminal.console import say
from tuner.transfer.keys import GroupKeys
from tuner.transfer.knowledge import KnowledgeFiles
from tuner.transfer.teach import taught


def teach(study: PreparedStudy, loaded: LoadedRun, problem: Problem, reference: Scores) -> None:
    """Writes it to the user's cache, unless the study does without; a cache that cannot be written is said.

    Args:
        study: The study.
        loaded: Its trials.
        problem: As its sampler saw it.
        reference: Scores of the unquantized model.
    """
    inputs = study.inputs
    if inputs.data is None or not inputs.config.search.transfer:
        return
    keys, history = GroupKeys.of(inputs.graph, inputs.space), read_history(loaded.trials.study, problem)
    found = taught(inputs.config.name, problem, own_problem(study, reference), history, keys, study.knowledge)
    if found is None:
        return
    files = KnowledgeFiles(inputs)
    try:
        files.write(found)
    except OSError as error:
        say(f"warning: {files.folder}: cannot be written ({error.strerror}): later studies learn nothing of this")
