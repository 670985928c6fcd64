"""Sensitivity by other tools than the ONNX sweep: which model, images and settings each is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from search_spaces.sensitivity import SensitivityTable
from tuner.prepare.images import calibration_images, data_of
from tuner.study.config import StudyConfig
from tuner.study.inputs import Inputs
from tuner.study.model_file import CHECKPOINT_SUFFIX
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent

if TYPE_CHECKING:
    from objectives.sensitivity.modelopt_sweep import SweepInputs

_PREPROCESSING = "preprocessing sensitivity images"


def modelopt_tables(
    inputs: Inputs, run: RunFolder, scores: Sequence[str], steps: Steps = silent
) -> list[SensitivityTable]:
    """ModelOpt's AutoQuantize on the checkpoint, in every format and granularity of the study.

    Args:
        inputs: The study.
        run: Where each report is kept.
        scores: ``gradient``, ``kl`` or both.
        steps: Shows progress.

    Returns:
        Per score the table of the first granularity; every run has a report of its own.

    Raises:
        InputError: The study names no checkpoint, or one that the model was not exported from.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    from objectives.sensitivity.modelopt_sweep import SweepRun, merged, modelopt_sweep

    granularities = inputs.config.sensitivity.granularities
    formats = inputs.space.quantized_formats
    runs = [SweepRun(f, g, s) for s in scores for g in granularities for f in formats]
    swept = sweep_inputs(inputs, run, steps)
    with steps("ModelOpt sensitivity", len(runs)) as done:
        tables = modelopt_sweep(swept, runs, run.path / "modelopt", done)
    return [merged([tables[SweepRun(f, granularities[0], s)] for f in formats]) for s in scores]


def inc_table(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> SensitivityTable:
    """Neural Compressor's mean squared error with one layer at a time in int8.

    Raises:
        InputError: The model has no dense output.
        RuntimeUnavailable: Its environment is missing, or it failed.
    """
    from objectives.neural_compressor.session import inc_python, inc_sensitivity

    settings, graph = inputs.config.sensitivity, inputs.graph
    python = inc_python(settings.inc_python)
    images = calibration_images(inputs, run, steps, settings.images, _PREPROCESSING)
    with steps("Neural Compressor sensitivity", len(graph.quantizable)) as done:
        return inc_sensitivity(python, graph, data_of(inputs).contract, images, done)


def other_sensitivity(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> SensitivityTable:
    """The prior by ModelOpt or by Neural Compressor, as the study says.

    Raises:
        InputError: Neural Compressor is to score other formats than int8.
    """
    settings = inputs.config.sensitivity
    if settings.method == "modelopt":
        return modelopt_tables(inputs, run, settings.scores, steps)[0]
    from objectives.neural_compressor.session import FORMAT

    others = [name for name in inputs.space.quantized_formats if name != FORMAT]
    if others:
        raise InputError(
            f"sensitivity.method: 'inc' scores {FORMAT} only, but space.formats has {', '.join(others)}; "
            "choose onnx or modelopt, or leave them out"
        )
    return inc_table(inputs, run, steps)


def sweep_inputs(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> SweepInputs:
    """Loads the checkpoint, verifies it against the study's model, and labels the calibration images."""
    from objectives.sensitivity.modelopt_sweep import SweepInputs
    from objectives.torch_models.checkpoint import load_checkpoint
    from objectives.torch_models.detector import OWN_LABELS, TorchDetector, read_labels
    from objectives.torch_models.export import map_checkpoint
    from objectives.torch_models.packages import require_modelopt

    config, graph = inputs.config, inputs.graph
    path = checkpoint_path(config)
    require_modelopt("sensitivity.method modelopt")
    checkpoint = load_checkpoint(path)
    data = data_of(inputs)
    contract = data.contract
    end_to_end = contract.head.one_to_one
    nodes = map_checkpoint(checkpoint, graph, end_to_end)
    nodes.require_complete(str(path), str(graph.path))
    detector = TorchDetector(checkpoint, end_to_end, config.sensitivity.device)
    records = data.calibration.images[: config.sensitivity.images]
    images = calibration_images(inputs, run, steps, config.sensitivity.images, _PREPROCESSING)
    named = config.sensitivity.labels
    if named is not None:
        labels = read_labels(Path(named), records, images, contract)
    else:
        labels = tuple(detector.own_labels(images.batch(i, i + 1), contract) for i in range(len(images)))
    provenance = {
        "checkpoint": checkpoint.digest,
        "labels": Path(named).name if named is not None else OWN_LABELS,
        "calibration_images": images.digest,
    }
    return SweepInputs(graph, nodes, detector, images, labels, provenance)


def checkpoint_path(config: StudyConfig) -> Path:
    """The checkpoint of a study: its model, or what ``sensitivity.checkpoint`` names.

    Raises:
        InputError: There is none.
    """
    path = named_checkpoint(config)
    if path is None:
        raise InputError(
            "sensitivity.checkpoint: missing; ModelOpt scores a PyTorch model: name the .pt that model.path was "
            "exported from, or set model.path to it"
        )
    return path


def named_checkpoint(config: StudyConfig) -> Path | None:
    """The checkpoint of a study, as `checkpoint_path`; None where there is none."""
    if Path(config.model.path).suffix == CHECKPOINT_SUFFIX:
        return Path(config.model.path)
    return Path(config.sensitivity.checkpoint) if config.sensitivity.checkpoint is not None else None
