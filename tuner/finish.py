"""After the last trial: re-score the front, write it, export its members, draw previews, write the report."""

from __future__ import annotations

import shutil

from objectives.scores import Scores
from tuner.export import Exporter
from tuner.front import write_front
from tuner.learned import learn
from tuner.loaded import load_run
from tuner.reporting import draw_previews, write_report_of
from tuner.rescore import rescore_front
from tuner.run_folder import write_durably
from tuner.search_problem import study_problem
from tuner.workbench import Workbench


def finish(workbench: Workbench, reference: Scores) -> None:
    """Writes all results of a run; each step that was done before is skipped or repeated to the same end.

    Args:
        workbench: The run.
        reference: Scores of the unquantized model.
    """
    run = workbench.run
    loaded = load_run(run.path)
    if workbench.inputs.data is not None:
        rescore_front(workbench, loaded.front)
        loaded = load_run(run.path)
    members = loaded.front
    write_front(run, loaded.config.name, members, reference)
    wanted = {str(member.record.number) for member in members}
    run.schemes.mkdir(exist_ok=True)
    for folder in run.schemes.iterdir():
        if folder.name not in wanted:  # no longer on the front, or left by a crash
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
