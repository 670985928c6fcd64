"""Refines the numbers of one trial, and measures what comes of it as the trials are measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.scores import Failure, Scores
from objectives.tasks.detection.data.calibration_set import CalibrationSet, check_disjoint, load_calibration
from objectives.torch_models.packages import require
from search_spaces.errors import InputError
from tuner.compare.baselines import open_scored
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.evaluators import open_evaluator
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.materializers import make_materializer
from tuner.prepare.prepared import ensure_parts
from tuner.prepare.refinements import KeptRefinement, forget_refined, keep_refined, kept_refinements
from tuner.prepare.weights import ensure_weights, weight_settings
from tuner.results.finalize import measure_again, publish
from tuner.results.front_files import row
from tuner.results.loaded import LoadedRun, load_run
from tuner.search.records import FrontMember, TrialRecord
from tuner.study.identity import check_identity, identity, read_run_study
from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent

if TYPE_CHECKING:
    from objectives.refinement.refine import Refinement


@dataclass(frozen=True)
class Refining:
    """What became of one trial.

    Attributes:
        divergence: From the unquantized model on the images that nothing was learnt on: before.
        best: The same, at the best of all stages.
        judged_on: How many images these are.
        kept: The refined numbers; None where they gained nothing, and the trial keeps its own.
        rows: Of the trial and of what was refined from it, as ``front.json`` has them; empty where nothing was kept.
        on_front: Whether that joined the front.
    """

    divergence: float
    best: float
    judged_on: int
    kept: KeptRefinement | None = None
    rows: tuple[Mapping[str, Any], ...] = ()
    on_front: bool = False


def refine_trial(
    path: Path,
    trial: int,
    minutes: float,
    images: Path | None = None,
    device: str | None = None,
    steps: Steps = silent,
) -> Refining:
    """Learns better numbers of a trial's scheme from the run's ranges and weights, and measures the artifact.

    What was refined from the same trial before is replaced; its trials and their artifacts stay as they are.

    Args:
        path: The run folder.
        trial: Number of a complete trial.
        minutes: Of learning, at most.
        images: Unlabelled ones: a list, a folder or a data yaml; the run's calibration images by default.
        device: ``cpu`` or ``cuda``; by default a GPU where PyTorch sees one.
        steps: Shows progress.

    Raises:
        InputError: The run is not ready or not this machine's, an image is also evaluated on, or the scheme cannot be
            refined or its artifact not be measured.
        RuntimeUnavailable: PyTorch is missing.
    """
    require("torch", "tuner refine")
    chosen = _device(device)
    loaded = open_scored(path)
    record, run = loaded.record(trial), loaded.run
    inputs = read_inputs(read_run_study(run))
    check_identity(run, loaded.manifest["identity"], identity(inputs.config, digests=inputs.digests))
    inputs = inputs.as_recorded(loaded.manifest)
    data = data_of(inputs)
    unlabelled = load_calibration(images) if images is not None else data.calibration
    check_disjoint(unlabelled, data.full)
    with run.lock():
        found = _learn(inputs, run, record, unlabelled, minutes, chosen, steps)
        outcome = Refining(found.divergence, min(stage.divergence for stage in found.stages), found.judged_on)
        run.log("refined", trial=trial, divergence=outcome.divergence, best=outcome.best, kept=found.best is not None)
        if found.best is None:
            return outcome
        stage = found.best
        facts = KeptRefinement(
            trial=trial,
            made=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            stage=stage.name,
            divergence=found.divergence,
            refined_divergence=stage.divergence,
            learnt_on=found.learnt_on,
            judged_on=found.judged_on,
            images=unlabelled.digest,
            seconds=round(stage.seconds, 1),
            device=chosen,
        )
        kept = keep_refined(run, stage.refined, facts)
        _measure(inputs, run, loaded, record, kept, steps)
        for older in kept_refinements(run):
            if older.trial == trial and older != kept:
                forget_refined(run, older)
        return _published(inputs, run, replace(outcome, kept=kept), steps)


def _device(asked: str | None) -> str:
    """A PyTorch device that is there."""
    import torch

    if asked not in (None, "cpu", "cuda"):
        raise InputError(f"--device {asked!r}: is not one of cpu, cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch sees no GPU here; choose cpu, or install PyTorch for CUDA")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def _learn(
    inputs: Inputs,
    run: RunFolder,
    record: TrialRecord,
    unlabelled: CalibrationSet,
    minutes: float,
    device: str,
    steps: Steps,
) -> Refinement:
    from objectives.refinement.refine import RefinementSettings, refine

    config, graph = inputs.config, inputs.graph
    calibration, weights = ensure_calibration(inputs, run, steps), ensure_weights(inputs, run, steps)
    pixels = ensure_images(inputs, run, unlabelled.images, steps, "preprocessing unlabelled images")
    return refine(
        make_materializer(config, graph, calibration, weights),
        weight_settings(config.weights),
        record.allocation,
        data_of(inputs).contract,
        pixels,
        RefinementSettings(minutes=minutes, device=device, seed=config.search.seed),
        say,
    )


def _measure(
    inputs: Inputs, run: RunFolder, loaded: LoadedRun, record: TrialRecord, kept: KeptRefinement, steps: Steps
) -> None:
    """Scores and times the artifact as a trial's, and makes that durable; raises where it cannot be."""
    assert loaded.reference is not None
    allocation = replace(record.allocation, numbers=kept.numbers)
    with open_evaluator(inputs, run, steps) as evaluator, steps("measuring the refined scheme", 1) as done:
        result = evaluator.evaluate(allocation, loaded.reference)
        done(1)
    if not isinstance(result, Scores):
        forget_refined(run, kept)
        why = f"{result.kind}: {result.message}" if isinstance(result, Failure) else "it was screened"
        raise InputError(f"trial {record.number}: what was refined from it cannot be measured: {why}")
    run.save_evaluation(allocation, result)


def _published(inputs: Inputs, run: RunFolder, outcome: Refining, steps: Steps) -> Refining:
    """Measures again what the front is chosen of, and writes front and report."""
    assert outcome.kept is not None
    loaded, numbers = load_run(run.path), outcome.kept.numbers
    reference = loaded.reference
    assert reference is not None
    near = {member.record.name for member in loaded.front} | {record.name for record in loaded.refined}
    near.add(str(outcome.kept.trial))
    chosen = {
        record.allocation.digest: record.allocation
        for record in loaded.measured
        if record.name in near or record.allocation.digest in loaded.rescores
    }
    parts = ensure_parts(inputs, run, steps)
    measure_again(inputs, run, parts, list(chosen.values()), steps)
    members = publish(inputs, run, parts, reference, steps)
    rescores, objectives = load_run(run.path).rescores, loaded.config.objective_set
    pair = [loaded.record(outcome.kept.trial), loaded.named(f"{outcome.kept.trial}-refined")]
    rows = [row(FrontMember(one, rescores.get(one.allocation.digest)), reference, objectives) for one in pair]
    joined = any(member.record.allocation.numbers == numbers for member in members)
    return replace(outcome, rows=tuple(rows), on_front=joined)
