"""After the last trial: re-score the front, write it, export its members, draw previews, write the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from objectives.scores import Scores
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.prepared import ArtifactParts, PreparedStudy
from tuner.results.export import Exporter
from tuner.results.front_files import rescored, write_front
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.posterior_front import posterior_front
from tuner.results.reporting import draw_previews, write_report_of
from tuner.results.rescore import rescore, with_rounds
from tuner.results.retime import Round, Worthwhile, retime
from tuner.results.teach import teach
from tuner.samplers.problem import Problem
from tuner.search.front import feasible, front_of
from tuner.search.learned import learn
from tuner.search.problem import study_problem
from tuner.search.records import FrontMember, TrialRecord
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json
from tuner.terminal.progress import Steps, silent


def finish(study: PreparedStudy, reference: Scores, steps: Steps = silent) -> None:
    """Writes all results of a run; each step that was done before is skipped or repeated to the same end.

    Args:
        study: What was searched.
        reference: Scores of the unquantized model.
        steps: Shows progress.
    """
    inputs, run, parts = study.inputs, study.run, study.parts
    problem = study_problem(study, reference)
    loaded = load_run(run.path)
    if parts is not None:
        measure_again(inputs, run, parts, _candidates(loaded, problem, reference), steps)
    write_durably(run.learned, learn(loaded.trials.study, problem).to_json())
    teach(study, load_run(run.path), problem, reference)
    publish(inputs, run, parts, reference, steps)


def measure_again(
    inputs: Inputs, run: RunFolder, parts: ArtifactParts, chosen: Sequence[Allocation], steps: Steps = silent
) -> None:
    """Re-scores schemes, and times them again where latency is an objective; skips what was."""
    rescore(inputs, run, parts, chosen, steps)
    if inputs.config.objective_set.timed:
        retime(inputs, run, chosen, _shown(load_run(run.path)), steps)


def publish(
    inputs: Inputs, run: RunFolder, parts: ArtifactParts | None, reference: Scores, steps: Steps = silent
) -> list[FrontMember]:
    """Writes the front by what is known now, exports its members, draws previews, writes the report.

    Args:
        inputs: The study.
        run: Its folder.
        parts: Of its artifacts; None where scores are replayed.
        reference: Scores of the unquantized model.
        steps: Shows progress.

    Returns:
        The front.
    """
    loaded = load_run(run.path)
    members = loaded.front
    write_front(run, loaded.config.name, members, reference, loaded.config.objective_set)
    wanted = {member.record.name: member.record for member in members}
    run.schemes.mkdir(exist_ok=True)
    for folder in run.schemes.iterdir():
        if folder.is_dir() and (
            folder.name not in wanted or _outdated(folder, wanted[folder.name], loaded)
        ):  # no longer on the front, or left by a crash
            shutil.rmtree(folder)
    exporter = Exporter(loaded, inputs.graph)
    with steps("exporting the front", 0):
        for name, record in wanted.items():
            if not (run.schemes / name).exists():
                exporter.export(record, run.schemes / name)
    if parts is not None:
        for member in members:
            if member.recommended or member.nearest:
                draw_previews(inputs, run, parts, member, steps)
    with steps("writing the report", 0):
        write_report_of(loaded, inputs.graph.layers)
    run.log("front", members=sorted(record.number for record in wanted.values()))
    return members


def _candidates(loaded: LoadedRun, problem: Problem, reference: Scores) -> list[Allocation]:
    """Schemes that are measured again: the front as the search measured it, and that which the models believe in.

    A measured front is made of lucky figures; a scheme that was unlucky is only found by what the models say of it. And
    the uniform schemes that work: the front's answer is compared with them.
    """
    config = loaded.config
    measured = front_of(loaded.measured, config.objective_set, reference)
    refined = [record.allocation for record in loaded.refined]
    believed = posterior_front(loaded, problem)
    uniform = [r.allocation for r in feasible(loaded.records, config.objective_set) if r.origin.startswith("uniform:")]
    found = {a.digest: a for a in [*(member.record.allocation for member in measured), *believed, *uniform, *refined]}
    loaded.run.log("rescoring", measured=len(measured), believed=len(believed), schemes=len(found))
    return list(found.values())


def _shown(loaded: LoadedRun) -> Worthwhile:
    """Who stands in the front and is not folded, by the rounds so far."""

    def digests(rounds: Mapping[str, Sequence[Round]]) -> set[str]:
        rescores = {digest: with_rounds(found, rounds.get(digest, ())) for digest, found in loaded.rescores.items()}
        members = replace(loaded, rescores=rescores).front
        return {member.record.allocation.digest for member in members if member.folded_under is None}

    return digests


def _outdated(folder: Path, record: TrialRecord, loaded: LoadedRun) -> bool:
    """Whether an exported scheme does not tell what is known of it now."""
    told = read_json(folder / "scheme.json", dict[str, Any])
    now = rescored(record, loaded.rescores, loaded.reference, loaded.config.objective_set.maximised)
    return bool(told.get("rescored") != now or told.get("allocation_digest") != record.allocation.digest)
