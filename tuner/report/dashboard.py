"""Shows a run inside optuna-dashboard: the Pareto figure, a note with the front, and the artifacts."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna_dashboard import get_note, save_note, save_plotly_graph_object

from search_spaces.markdown import plain
from tuner.report.answer import answer_markdown, scheme_markdown
from tuner.report.arranged import GRAPH
from tuner.report.pareto import pareto_figure
from tuner.report.server import DashboardServer, serve
from tuner.report.tables import front_markdown
from tuner.report.view import Run
from tuner.samplers.optuna_compat import running_trial, study_attr, trial_id, update_study_attr
from tuner.search.records import BaselineOutcome, FrontMember, Rescore, RunSummary, TrialRecord
from tuner.study.artifacts import Artifacts

__all__ = ["DashboardServer", "attach", "serve"]

_DIGEST = "tuner:dashboard:pareto"
_NOTES = "tuner:dashboard:notes"
_NAMESPACE = uuid.UUID("6f0c6a52-3a0f-5d54-9f2a-6d8c1f6f2b11")


def attach(
    study: optuna.Study,
    *,
    summary: RunSummary,
    records: Sequence[TrialRecord],
    front: Sequence[FrontMember],
    baselines: Sequence[BaselineOutcome],
    artifacts: Artifacts,
    report: Path,
    rescores: Mapping[str, Rescore] | None = None,
) -> None:
    """Puts the figure, the note and the artifacts into the study's storage; a second call changes nothing.

    Files that changed since the last call replace the earlier ones.

    Args:
        study: The study, on a storage that may be written.
        summary: Facts of the run.
        records: All trials.
        front: The front's members.
        baselines: Points to compare with, and what came to nothing.
        artifacts: Where the files go.
        rescores: ``{allocation digest: rescore}`` of any scheme.
        report: The report.html; ``front.json`` and ``schemes/<trial>/`` are looked for beside it.

    Raises:
        InputError: The folder of the artifacts cannot be made.
        ArtifactStoreError: A bucket cannot be written.
    """
    run, folder = Run.of(summary, records, front, baselines, rescores), report.parent
    _name_objectives(study, summary.objectives)
    _save_figure(study, run)
    note = _note(run, folder)
    if get_note(study) != note:
        save_note(study, note)
    _save_trial_notes(study, run, folder)
    for path in (report, folder / "front.json"):
        if path.is_file():
            _publish(study, artifacts, path)
    trial_ids = {trial.number: trial_id(trial) for trial in study.get_trials(deepcopy=False)}
    for member in run.members:
        number = member.record.trial
        for name in ("model.onnx", "scheme.json"):
            path = folder / "schemes" / member.record.name / name
            if number in trial_ids and path.is_file():
                _publish(study, artifacts, path, trial_ids[number])


def _name_objectives(study: optuna.Study, names: Sequence[str]) -> None:
    if len(study.directions) == len(names) and study.metric_names != list(names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(names))


def _save_figure(study: optuna.Study, run: Run) -> None:
    """Saves the Pareto figure unless it is there already: it takes dozens of commits."""
    if not run.complete or run.unquantized is None:
        return
    figure = pareto_figure(run, width=1150, height=450)  # as high as the page makes it
    title = "<b>Pareto front</b>: latest figures, with 95 % intervals of what was measured again after the search"
    figure.update_layout(title={"text": title, "x": 0.01, "y": 0.97, "font": {"size": 14}}, margin={"t": 90})
    digest = hashlib.sha256(figure.to_json().encode()).hexdigest()
    if study_attr(study, _DIGEST) == digest:
        return
    save_plotly_graph_object(study, figure, graph_object_id=GRAPH)
    update_study_attr(study, _DIGEST, digest)


def _save_trial_notes(study: optuna.Study, run: Run, folder: Path) -> None:
    """Writes a note on the page of every complete trial; what is there already is not written again."""
    if run.unquantized is None:
        return
    kept = json.loads(study_attr(study, _NOTES) or "{}")
    now = {}
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for record in run.complete:
        text = scheme_markdown(run, run.member(record), folder)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        now[str(record.number)] = digest
        if kept.get(str(record.number)) != digest and record.number in trials:
            save_note(running_trial(study, trials[record.number]), text)
    update_study_attr(study, _NOTES, json.dumps(now))


def _note(run: Run, folder: Path) -> str:
    facts = {"model": run.summary.model, **run.summary.facts}
    lines = "".join(f"- {plain(label)}: {plain(text)}\n" for label, text in facts.items())
    return (
        f"{answer_markdown(run)}\n### Front\n\n"
        f"{front_markdown(run, folder)}\nThe Pareto figure is at the head of the study's first page; report.html "
        "is among the artifacts. The page of a trial says what it is, and that of a front scheme holds its model."
        f"\n\n### Run\n\n{lines}"
    )


def _publish(study: optuna.Study, artifacts: Artifacts, path: Path, trial: int | None = None) -> None:
    """Puts a file into the artifact store under an id made of its scope and name, so that it has one entry.

    optuna's `upload_artifact` refuses finished trials and makes a new entry at each call; the dashboard
    also lists a trial's artifacts by the study's attributes.
    """
    scope = "study" if trial is None else path.parent.name
    artifact_id = str(uuid.uuid5(_NAMESPACE, f"{study.study_name}/{scope}/{path.name}"))
    artifacts.put(artifact_id, path)
    mimetype, encoding = mimetypes.guess_type(path.name)
    meta = {
        "artifact_id": artifact_id,
        "filename": path.name if trial is None else f"trial-{path.parent.name}-{path.name}",
        "mimetype": mimetype or "application/octet-stream",
        "encoding": encoding,
    }
    prefix = "artifacts:" if trial is None else f"dashboard:artifacts:{trial}:"
    update_study_attr(study, prefix + artifact_id, json.dumps(meta))
