"""A run as read back from its folder, without its model and images: for status, front, export and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from tuner.prepare.refinements import kept_refinements
from tuner.search.front import front_of, recommendation
from tuner.search.recommendation import Recommendation
from tuner.search.records import FrontMember, Rescore, TrialRecord
from tuner.search.trials import Trials
from tuner.study.artifacts import Artifacts, open_artifacts
from tuner.study.config import StudyConfig
from tuner.study.identity import read_manifest, read_run_study, recorded_space
from tuner.study.run_folder import RunFolder, read_json
from tuner.study.storage import damage_named, open_storage


@dataclass(frozen=True)
class LoadedRun:
    """What a run holds so far.

    Attributes:
        run: Its folder.
        config: The composed study.
        manifest: Identity and settings.
        space: Groups and formats.
        trials: Its Optuna study.
        records: All trials, in order.
        reference: Scores of the unquantized model; None before they are known.
        rescores: ``{allocation digest: rescore}``.
        refined: Schemes whose numbers were refined, beside the trials.
    """

    run: RunFolder
    config: StudyConfig
    manifest: Mapping[str, Any]
    space: SearchSpace
    trials: Trials
    records: Sequence[TrialRecord]
    reference: Scores | None
    rescores: Mapping[str, Rescore]
    refined: Sequence[TrialRecord] = ()

    @property
    def measured(self) -> list[TrialRecord]:
        """The trials, and what was refined from them."""
        return [*self.records, *self.refined]

    @property
    def front(self) -> list[FrontMember]:
        """The front; empty before the reference is known."""
        return self.front_by(self.config.objective_set)

    def front_by(self, objectives: ObjectiveSet) -> list[FrontMember]:
        """The front with the marks of another budget than the study's; empty before the reference is known."""
        if self.reference is None:
            return []
        return front_of(self.measured, objectives, self.reference, rescores=self.rescores)

    @property
    def recommendation(self) -> Recommendation | None:
        """The scheme that its answer names; None as long as the front holds no quantized one."""
        if self.reference is None:
            return None
        return recommendation(self.front, self.reference, self.config.objective_set)

    def artifacts(self) -> Artifacts:
        """Opens the store of the files that its dashboard hands out; raises as `open_artifacts` does."""
        return open_artifacts(self.config.artifacts, self.run.artifacts, self.manifest["id"])

    @property
    def link(self) -> str:
        """The run that this one is linked to, and what it took from there; empty where there is none."""
        if "linked" not in self.manifest:
            return ""
        path, run = self.manifest["linked"]["path"], self.manifest["linked"]["run"]
        reused = sum(record.scores is not None and record.scores.reused != "" for record in self.records)
        return f"{path} (id {run[:8]}), accuracy of {reused} trials reused"

    def named(self, name: str) -> TrialRecord:
        """The trial ``12``, or ``12-refined``, which was refined from it.

        Raises:
            InputError: There is none, or it has no scores.
        """
        found = next((record for record in self.refined if record.name == name), None)
        if found is not None:
            return found
        if not name.isdecimal():
            known = ", ".join(record.name for record in self.refined) or "none was refined so far"
            raise InputError(f"--trial {name!r}: is no trial's number, nor refined ({known}); `tuner front` lists all")
        return self.record(int(name))

    def record(self, number: int) -> TrialRecord:
        """The trial of that number; ``~12`` is what was refined from trial 12, as ``front.json`` has it.

        Raises:
            InputError: There is none, or it has no scores.
        """
        refined = next((record for record in self.refined if record.number == number), None)
        if refined is not None:
            return refined
        if not 0 <= number < len(self.records):
            last = len(self.records) - 1
            raise InputError(f"--trial {number}: the run holds trials 0 to {last}; `tuner front` lists the front")
        record = self.records[number]
        if record.scores is None:
            raise InputError(f"--trial {number}: has no scores (it is {record.state}); choose a complete one")
        return record


def load_run(path: Path) -> LoadedRun:
    """Reads a run.

    Raises:
        InputError: It is not one, has not started yet, or is damaged.
    """
    from tuner.results.rescore import read_rescores

    run = RunFolder.open(path)
    config = read_run_study(run, check_paths=False)
    manifest = read_manifest(run)
    space = recorded_space(manifest)
    missing = InputError(f"run {str(path)!r}: holds no trial yet; `tuner resume {path}` goes on")
    if config.storage is None and not run.database.is_file():
        raise missing
    storage = open_storage(run.database, config.storage, create=False)
    with damage_named(run.database, config.storage):
        if config.name not in optuna.get_all_study_names(storage):
            raise missing
        trials = Trials(optuna.load_study(study_name=config.name, storage=storage), space, config, run)
        records = trials.records()
    reference = read_json(run.reference, Scores) if run.reference.exists() else None
    refined = refined_records(run, records)
    return LoadedRun(run, config, manifest, space, trials, records, reference, read_rescores(run), refined)


def refined_records(run: RunFolder, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """What was refined from trials and measured, of each trial the last."""
    found: dict[int, TrialRecord] = {}
    for kept in kept_refinements(run):
        if kept.trial >= len(records):
            raise InputError(f"{kept.folder(run)}: refined from trial {kept.trial}, which the run has not; delete it")
        allocation = replace(records[kept.trial].allocation, numbers=kept.numbers)
        scores = run.evaluation(allocation)
        if isinstance(scores, Scores):
            origin = f"refined from trial {kept.trial}"
            found[kept.trial] = TrialRecord(~kept.trial, "COMPLETE", origin, allocation, scores)
    return list(found.values())
