"""What a study reads before anything is written: model, contract, images, space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.registry import open_runtime
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.support import SupportKind
from objectives.tasks.detection.data.calibration_set import CalibrationSet, check_disjoint, load_calibration
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.metrics.scoring import figures, needs
from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED, get_format
from search_spaces.model_graph import ModelGraph
from search_spaces.space import Rule, SearchSpace
from tuner.study.config import ModelSection, StudyConfig
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
        """What a person should know of the images and labels, a line each."""
        return () if self.data is None else (*self.data.full.notes, *self.data.calibration.notes)

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
    assert config.data.images is not None and config.data.calibration is not None
    _check_metrics(config.data.metrics)
    contract = contract.giving(needs(config.data.metrics), f"data.metrics: [{', '.join(config.data.metrics)}]")
    annotations = config.data.annotations
    labels = Path(annotations) if annotations else None
    full = load_dataset(Path(config.data.images), labels, config.data.split, contract.details)
    full = full.matched(contract.classes, contract.class_count)
    calibration = load_calibration(Path(config.data.calibration), config.calibration.images)
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
    graph = ModelGraph(onnx_file(Path(model.path), head=model.head, image_size=model.size, runtime=runtime))
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
    if wanted.timed and runtime.emulated:
        raise InputError(
            f"objectives: [{', '.join(config.objectives)}]: no latency can be measured here: {runtime.emulated}; "
            "choose [map_50_95, weight_mib] or [map_50_95, engine_mib] here, and latency_ms there (`--new-device`)"
        )
    if wanted.built and not isinstance(runtime, EngineBuilder):
        raise InputError(f"objectives: engine_mib: {runtime.name} builds no engines; choose weight_mib")


def _check_metrics(metrics: Sequence[str]) -> None:
    missing = [name for name in ("map_50_95", "map_50") if name not in figures(metrics)]
    if missing:
        raise InputError(f"data.metrics: {', '.join(metrics) or 'none'} yields no {missing[0]}; add coco_box")


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
