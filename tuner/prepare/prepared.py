"""What is known of a study before its first trial: what the search and its results take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import Recovered
from objectives.quantization.refined import Refined
from search_spaces.costs import CostTable
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityTable
from search_spaces.unsupported import Unsupported
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.costs import ensure_costs
from tuner.prepare.knowledge import ensure_knowledge
from tuner.prepare.materializers import batched_graph, make_materializer
from tuner.prepare.probe import unsupported_pairs
from tuner.prepare.refinements import read_refined
from tuner.prepare.sensitivity import ensure_sensitivity
from tuner.prepare.weights import ensure_weights
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import Steps, silent
from tuner.transfer.knowledge import Knowledge


@dataclass(frozen=True)
class ArtifactParts:
    """What the artifacts of a study are made of.

    Attributes:
        graph: The model at the study's batch.
        calibration: Ranges of its activations.
        weights: ``{weight_key: weight}`` of the reconstructed weights.
        refined: ``{key: numbers}`` of the refined schemes.
        materializer: Assembles the artifacts; keeps each weight that it has quantized.
    """

    graph: ModelGraph
    calibration: CalibrationTable
    weights: Mapping[str, Recovered]
    refined: Mapping[str, Refined]
    materializer: Materializer


@dataclass(frozen=True)
class PreparedStudy:
    """A study, and what was found out about it before its search.

    Attributes:
        inputs: What the study read.
        run: Where its results are kept.
        parts: Of its artifacts; None where scores are replayed.
        sensitivity: How much each layer hurts in each format.
        costs: ``{kind of prior: table}`` of every cost that is minimized or bounded.
        unsupported: Pairs that the target cannot build, or gains nothing from.
        knowledge: What earlier studies taught, as it was when this one began.
    """

    inputs: Inputs
    run: RunFolder
    parts: ArtifactParts | None
    sensitivity: SensitivityTable
    costs: Mapping[str, CostTable]
    unsupported: Unsupported
    knowledge: Knowledge


def prepare_study(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> PreparedStudy:
    """Reads what the run holds of these preparations, and makes the rest.

    Args:
        inputs: The study.
        run: Where they are kept; probed, where the runtime has engines.
        steps: Shows progress.

    Raises:
        InputError: The run was not probed, or the study's way to find sensitivities cannot score it.
        RuntimeUnavailable: The machine lacks what a step needs.
    """
    unsupported = unsupported_pairs(inputs, run)
    parts = ensure_parts(inputs, run, steps) if inputs.data is not None else None
    costs = ensure_costs(inputs, run, parts.materializer if parts is not None else None, steps)
    sensitivity = ensure_sensitivity(inputs, run, steps)
    return PreparedStudy(inputs, run, parts, sensitivity, costs, unsupported, ensure_knowledge(inputs, run))


def ensure_parts(inputs: Inputs, run: RunFolder, steps: Steps = silent) -> ArtifactParts:
    """Calibrates and reconstructs weights unless the run did; raises as `ensure_calibration` does."""
    graph = batched_graph(inputs.graph, inputs.config.runtime.batch)
    calibration = ensure_calibration(inputs, run, steps)
    weights = ensure_weights(inputs, run, steps)
    refined = read_refined(run)
    made = make_materializer(inputs.config, graph, calibration, weights, refined=refined)
    return ArtifactParts(graph, calibration, weights, refined, made)
