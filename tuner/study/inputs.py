"""What a study reads before anything is written: model, contract, images, space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.registry import open_runtime
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.support import SupportKind
from objectives.tasks.detection.data.calibration_set import CalibrationSet, check_disjoint, held_out, load_calibration
from objectives.tasks.detection.data.dataset import CocoDataset, has_labels, load_dataset, load_unlabelled
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.metrics.metric import LABELS
from objectives.tasks.detection.metrics.registry import METRICS
from objectives.tasks.detection.metrics.scoring import figures, needs
from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED, get_format
from search_spaces.model_graph import ModelGraph
from search_spaces.space import Rule, SearchSpace
from tuner.study.config import ModelSection, StudyConfig
from tuner.study.identity import recorded_space
from tuner.study.model_file import onnx_file


@dataclass(frozen=True)
class Data:
    """The images of a study.

    Attributes:
        contract: How the model reads images and writes detections.
        full: All evaluation images.
        search: The subset that trials are scored on.
        calibration: The calibration images.
    """

    contract: Detector
    full: CocoDataset
    search: CocoDataset
    calibration: CalibrationSet


@dataclass(frozen=True)
class Inputs:
    """All that a study reads.

    Attributes:
        config: The study.
        runtime: Where its schemes run.
        graph: The model.
        space: Its groups and formats.
        data: The images; None where the runtime makes no artifacts.
    """

    config: StudyConfig
    runtime: Runtime
    graph: ModelGraph
    space: SearchSpace
    data: Data | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the model is read, of the images and labels, a line each."""
        if self.data is None:
            return ()
        told = self.data.contract.note
        head = (f"{self.graph.path}: {told}",) if told else ()
        return (*head, *self.data.full.notes, *self.data.calibration.notes)

    def as_recorded(self, manifest: Mapping[str, Any]) -> Inputs:
        """The same with the groups called as a run recorded them: older runs call them otherwise.

        Args:
            manifest: Of a run of the same identity.

        Raises:
            InputError: It records other groups or formats than the study has.
        """
        recorded = recorded_space(manifest)
        if not recorded.same_but_for_names(self.space):
            raise InputError(
                "manifest.json: space: its groups or formats are not those of the run's study.yaml; restore it"
            )
        return replace(self, space=recorded)

    @property
    def dropped(self) -> list[str]:
        """Formats of the study that the space leaves out, because they gain nothing in the chosen objectives."""
        return [name for name in self.config.space.formats if not gains(self.config, self.runtime, name)]

    @property
    def digests(self) -> dict[str, str]:
        """Digests that make up the identity."""
        found = {"model": self.graph.digest, "space": self.space.fingerprint}
        if self.data is not None:
            found["data"] = self.data.full.digest
            found["calibration"] = self.data.calibration.digest
        return found


def read_inputs(config: StudyConfig) -> Inputs:
    """Reads and checks everything that a study names.

    Raises:
        InputError: Something is missing, broken, contradictory, or not supported.
        RuntimeUnavailable: This machine lacks what the study's runtime needs.
    """
    runtime = open_runtime(config.runtime)
    runtime.check()
    _check_measurable(config, runtime)
    graph = read_model(config.model, runtime)
    space = build_space(config, runtime, graph)
    if not runtime.artifacts:
        return Inputs(config, runtime, graph, space, None)
    contract = read_contract(config.model, graph)
    contract = contract.giving(needs(config.data.metrics), f"data.metrics: [{', '.join(config.data.metrics)}]")
    full = _read_images(config, contract.details)
    _check_metrics(config, full)
    full = full.matched(contract.classes, contract.class_count)
    if config.data.calibration is None:
        calibration, full = held_out(full, config.calibration.images)
    else:
        calibration = load_calibration(Path(config.data.calibration), config.calibration.images, full)
        check_disjoint(calibration, full)
    search = full.subset(config.data.search_images)
    screening = config.search.screening
    if screening is not None and screening.images >= len(search):
        raise InputError(
            f"search.screening.images {screening.images}: trials are scored on {len(search)} images; give fewer"
        )
    return Inputs(config, runtime, graph, space, Data(contract, full, search, calibration))


def read_model(model: ModelSection, runtime: Runtime) -> ModelGraph:
    """Reads the model file; a checkpoint is exported for the runtime first.

    Raises:
        InputError: It is neither an ONNX detector nor an Ultralytics checkpoint that is safe to load.
        RuntimeUnavailable: It is a checkpoint, and the `torch` extra is missing.
    """
    file = onnx_file(Path(model.path), head=model.head, image_size=model.size, runtime=runtime)
    graph = ModelGraph(file, image_size=model.size)
    runtime.check_operators(graph)
    return graph


def read_contract(model: ModelSection, graph: ModelGraph) -> Detector:
    """Recognises the detector, with the overrides of the study.

    Raises:
        InputError: It is not one.
    """
    return recognise(graph, head=model.head, image_size=model.size, classes=model.classes)


def _check_measurable(config: StudyConfig, runtime: Runtime) -> None:
    wanted = config.objective_set
    accuracy = wanted.maximised.name
    if wanted.timed and runtime.emulated:
        raise InputError(
            f"objectives: [{', '.join(config.objectives)}]: no latency can be measured here: {runtime.emulated}; "
            f"choose [{accuracy}, weight_mib] or [{accuracy}, engine_mib] here, and latency_ms there (`--new-device`)"
        )
    if wanted.built and not isinstance(runtime, EngineBuilder):
        raise InputError(f"objectives: engine_mib: {runtime.name} builds no engines; choose weight_mib")


def _read_images(config: StudyConfig, details: frozenset[str]) -> CocoDataset:
    """The evaluation images, with the labels that the study names, or that lie beside them."""
    folder, annotations = Path(config.data.images or ""), config.data.annotations
    if config.labelled or has_labels(folder):
        return load_dataset(folder, Path(annotations) if annotations else None, config.data.split, details)
    return load_unlabelled(folder)


def _check_metrics(config: StudyConfig, dataset: CocoDataset) -> None:
    metrics, given = config.data.metrics, figures(config.data.metrics)
    wanted = config.objective_set
    for objective in (wanted.maximised, *(each for each in wanted.bounds if each.accuracy)):
        if objective.name not in given:
            raise InputError(
                f"data.metrics: {', '.join(metrics) or 'none'} yields no {objective.name}; add {objective.metric}"
            )
    blind = [name for name in metrics if LABELS in METRICS.get(name).needs]
    if blind and not dataset.labelled:
        raise InputError(
            f"data.metrics: {blind[0]} needs labels, and {dataset.source} holds images alone; give data.annotations, "
            "or leave the metric out"
        )


def build_space(config: StudyConfig, runtime: Runtime, graph: ModelGraph) -> SearchSpace:
    """Builds the search space from those formats that gain something; a rule keeps what it names explicitly.

    Raises:
        InputError: A rule, format or granularity is wrong, or no format is left that gains anything.
    """
    formats = [name for name in config.space.formats if gains(config, runtime, name)]
    if config.space.formats and not any(name != UNQUANTIZED for name in formats):
        named = ", ".join(config.space.formats)
        raise InputError(
            f"space.formats: [{named}] gains nothing in {', '.join(config.objectives)} on {config.runtime.name}; "
            "add int8, or weight_mib to the objectives"
        )
    rules = [Rule(rule.layers, tuple(rule.formats)) for rule in config.space.rules]
    return SearchSpace.build(graph.layers, formats, config.space.granularity, rules)


def gains(config: StudyConfig, runtime: Runtime, name: str) -> bool:
    """Whether a format can improve one of the study's costs over the unquantized layer.

    One that the runtime only stores does where size counts; one that it cannot have at all is left out in any case.
    """
    sized = config.objective_set.sized
    kind = runtime.support(get_format(name)).kind
    return kind is SupportKind.COMPUTES or (sized and kind is SupportKind.STORES)
