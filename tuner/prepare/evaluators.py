"""Opens the evaluator of a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.screening import ScreeningSettings
from objectives.evaluation.settings import EvaluatorSettings
from objectives.latency import TimingProtocol
from objectives.runtimes.runtime import Runtime, StudyEvaluator
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.images import data_of
from tuner.prepare.predicting import worker_count
from tuner.prepare.refinements import kept_refinements
from tuner.prepare.weights import ensure_weights, weight_settings
from tuner.study.config import StudyConfig, TimingSection
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent


@contextmanager
def open_evaluator(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> Iterator[StudyEvaluator]:
    """Starts the evaluator of a study: one child process that lives from trial to trial, or a replay.

    Args:
        inputs: The study.
        run: Where it finds ranges and weights, which are made first where they are missing, and keeps detections.
        steps: Shows progress.

    Raises:
        InputError: What it replays cannot be read.
        RuntimeUnavailable: The machine lacks what it needs.
    """
    if not inputs.runtime.artifacts:
        yield inputs.runtime.study_evaluator(inputs.graph)
        return
    with Evaluator(evaluator_settings(inputs, run, steps)) as evaluator:
        yield evaluator


def evaluator_settings(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> EvaluatorSettings:
    """What the evaluator of a study needs; raises as `open_evaluator` does.

    The child reads ranges and weights from their files, so both are made here where that was not done yet.
    """
    config, data = inputs.config, data_of(inputs)
    inputs.runtime.check()
    ensure_calibration(inputs, run, steps)
    weights = ensure_weights(inputs, run, steps)
    return EvaluatorSettings(
        model=inputs.graph.path,
        calibration=run.calibration,
        contract=data.contract,
        dataset=data.search,
        cache=run.image_cache,
        runtime=config.runtime,
        metrics=tuple(config.data.metrics),
        accuracy=config.objective_set.maximised,
        workers=worker_count(config.runtime.threads),
        weights=weight_settings(config.weights),
        recovered=run.recovered if weights else None,
        refined={kept.numbers: kept.folder(run) for kept in kept_refinements(run)},
        timing=timing_protocol(config.timing, inputs.runtime) if config.objective_set.timed else None,
        predictions=run.predictions,
        screening=screening_settings(config),
        known=run.known if run.known.is_dir() else None,
        engines=run.engines,
        log=run.path / "evaluator.log",
        failures=run.failures,
    )


def screening_settings(config: StudyConfig) -> ScreeningSettings | None:
    """What the evaluator is told; None where the study screens nothing."""
    section = config.search.screening
    if section is None:
        return None
    wanted = config.objective_set
    return ScreeningSettings(section.images, section.confidence, config.search.seed, wanted.costs, wanted.maximised)


def timing_protocol(timing: TimingSection, runtime: Runtime) -> TimingProtocol:
    """How a runtime is timed: the study's bounds, of which only one that the user set may fail a trial."""
    return TimingProtocol(**timing.resolved(runtime.timing).model_dump(), strict=timing.max_cov is not None)
