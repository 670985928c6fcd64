"""After the last trial: re-score the front, write it, export its members, draw previews, write the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from objectives.scores import Scores
from search_spaces.allocation import Allocation
from tuner.prepare.workbench import Workbench
from tuner.results.export import Exporter
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.posterior_front import posterior_front
from tuner.results.reporting import draw_previews, write_report_of
from tuner.results.rescore import rescore
from tuner.results.retime import retime
from tuner.search.front import front_of, rescored, write_front
from tuner.search.learned import learn
from tuner.search.problem import study_problem
from tuner.study.run_folder import read_json, write_durably


def finish(workbench: Workbench, reference: Scores) -> None:
    """Writes all results of a run; each step that was done before is skipped or repeated to the same end.

    Args:
        workbench: The run.
        reference: Scores of the unquantized model.
    """
    run = workbench.run
    loaded = load_run(run.path)
    if workbench.inputs.data is not None:
        chosen = _candidates(workbench, loaded, reference)
        rescore(workbench, chosen)
        if "latency_ms" in loaded.config.objectives:
            retime(workbench, chosen)
        loaded = load_run(run.path)
    members = loaded.front
    write_front(run, loaded.config.name, members, reference)
    wanted = {str(member.record.number) for member in members}
    run.schemes.mkdir(exist_ok=True)
    for folder in run.schemes.iterdir():
        if folder.name not in wanted or _outdated(folder, loaded):  # no longer on the front, or left by a crash
            shutil.rmtree(folder)
    exporter = Exporter(loaded, workbench.inputs.graph)
    for member in members:
        folder = run.schemes / str(member.record.number)
        if not folder.exists():
            exporter.export(member.record, folder)
    if workbench.inputs.data is not None:
        for member in members:
            if member.recommended:
                draw_previews(workbench, member)
    problem = study_problem(workbench, reference, workbench.blocked)
    write_durably(run.learned, learn(loaded.trials.study, problem).to_json())
    write_report_of(loaded, workbench.inputs.graph.layers)
    run.log("front", members=sorted(int(number) for number in wanted))


def _candidates(workbench: Workbench, loaded: LoadedRun, reference: Scores) -> list[Allocation]:
    """Schemes that are measured again: the front as the search measured it, and that which the models believe in.

    A measured front is made of lucky figures; a scheme that was unlucky is only found by what the models say of it.
    """
    config = loaded.config
    measured = front_of(loaded.records, config.objectives, reference, bounds=config.constraints)
    believed = posterior_front(loaded, study_problem(workbench, reference, workbench.blocked))
    found = {a.digest: a for a in [*(member.record.allocation for member in measured), *believed]}
    workbench.run.log("rescoring", measured=len(measured), believed=len(believed), schemes=len(found))
    return list(found.values())


def _outdated(folder: Path, loaded: LoadedRun) -> bool:
    """Whether an exported scheme does not tell what is known of it now."""
    record = loaded.records[int(folder.name)]
    told = read_json(folder / "scheme.json", dict[str, Any]).get("rescored")
    return bool(told != rescored(record, loaded.rescores, loaded.reference))
