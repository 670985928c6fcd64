"""What earlier studies taught, kept in the run as it was when the study began: a resumed one begins from the same."""

from __future__ import annotations

from search_spaces.durable import write_durably
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_text
from tuner.terminal.console import say
from tuner.transfer.knowledge import Knowledge, KnowledgeFiles


def ensure_knowledge(inputs: Inputs, run: RunFolder) -> Knowledge:
    """Reads it from the run, else from the user's cache, and says so; nothing for a study that does without.

    Args:
        inputs: The study.
        run: Where it is kept.

    Raises:
        InputError: The run's file is damaged.
    """
    if inputs.data is None or not inputs.config.search.transfer:  # replayed scores belong to no device
        return Knowledge()
    if run.transfer.exists():
        return Knowledge.from_json(read_text(run.transfer), str(run.transfer))
    if run.seeds.exists():  # it began before there was any
        return Knowledge()
    found, faults = KnowledgeFiles(inputs).read()
    for line in (*(f"warning: {fault}" for fault in faults), *found.notes):
        say(line)
    run.log("transfer", notes=list(found.notes), faults=faults)
    write_durably(run.transfer, found.to_json())
    return found
