"""The study file as data: every key, its type and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from objectives.objective import OBJECTIVES
from objectives.objective_set import ObjectiveSet
from objectives.runtimes.registry import RUNTIMES, parse_settings
from objectives.runtimes.runtime import Runtime, TimingDefaults
from objectives.runtimes.settings import Positive, PositiveFloat, RuntimeSettings, Text
from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES
from objectives.tasks.detection.heads.registry import HEADS
from objectives.tasks.detection.metrics.metric import LABELS
from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS, METRICS
from search_spaces.formats import DEFAULT_FORMATS
from tuner.study.registered import name_in
from tuner.study.samplers import SAMPLERS

Head = Annotated[str, name_in(HEADS)]
Metric = Annotated[str, name_in(METRICS)]
Objective = Annotated[str, name_in(OBJECTIVES)]
Sampler = Annotated[str, name_in(SAMPLERS)]

#: Keys that hold paths, relative to the study file.
PATH_KEYS = (
    ("model", "path"),
    ("data", "images"),
    ("data", "annotations"),
    ("data", "calibration"),
    ("sensitivity", "file"),
    ("sensitivity", "checkpoint"),
    ("sensitivity", "labels"),
    ("sensitivity", "inc_python"),
)


class Section(BaseModel):
    """One mapping of the study file: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(Section):
    """The detector; head, image size and classes are read from the graph unless set here."""

    path: Text
    head: Head | None = None
    image_size: Positive | list[Positive] | None = None
    classes: list[Text] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """``(height, width)`` where set."""
        if self.image_size is None:
            return None
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size[0], self.image_size[-1]


class DataSection(Section):
    """Evaluation images with their labels, which an accuracy may do without, and calibration images.

    `split` is of a data yaml. Where `calibration` is left out, some of the images are taken, and not scored. `metrics`
    are by default those that the study's accuracy is of, beside COCO's where there are labels.
    """

    images: Text | None = None
    annotations: Text | None = None
    split: Literal["train", "val", "test"] = "val"
    calibration: Text | None = None
    search_images: Positive | None = None
    metrics: list[Metric] = list(DEFAULT_METRICS)


class RuleSection(Section):
    """Restricts matching layers to some formats."""

    layers: Text
    formats: list[Text]


class SpaceSection(Section):
    """What may be chosen."""

    granularity: Literal["layer", "module", "stage"] = "layer"
    formats: list[Text] = list(DEFAULT_FORMATS)
    rules: list[RuleSection] = []


class CalibrationSection(Section):
    """How activation ranges are found; `images` takes the first so many of the list, else all."""

    images: Positive | None = None
    method: Literal["auto", "max", "percentile", "entropy", "mse"] = "auto"


class WeightsSection(Section):
    """How weights are quantized; `images` of the calibration list tell gptq what each layer reads.

    `device` solves gptq: ``cpu`` by NumPy, ``cuda`` by PyTorch. `sequential` splits the layers into so many stages,
    each quantized for the inputs that the weights of the stages before it leave; 1 is off.
    """

    method: Literal["auto", "rtn", "bias", "gptq", "corrected"] = "auto"
    images: Positive = 32
    granularity: Literal["auto", "per_tensor", "per_channel", "block"] = "auto"
    block_size: Positive = 32
    sequential: Positive = 1
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$")] = "cpu"


class SensitivitySection(Section):
    """How the prior of the search is measured.

    For ``modelopt``: `checkpoint` is the .pt that an ONNX model was exported from, `labels` a COCO json of the
    calibration images (its own confident detections stand in for it), `device` a PyTorch device; of `scores` and
    `granularities` every combination is reported and the first is the prior. For ``inc``: `inc_python` is the
    interpreter of the environment that holds Intel Neural Compressor.
    """

    method: Literal["onnx", "modelopt", "inc", "file"] = "onnx"
    images: Positive = 8
    file: Text | None = None
    checkpoint: Text | None = None
    labels: Text | None = None
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$")] = "cpu"
    scores: Annotated[list[Literal["gradient", "kl"]], Field(min_length=1)] = ["gradient"]
    granularities: Annotated[list[Literal["per_layer", "per_channel"]], Field(min_length=1)] = ["per_channel"]
    inc_python: Text | None = None


def _runtime(data: Any) -> Any:
    return parse_settings(data) if isinstance(data, (dict, RuntimeSettings)) else data


class TimingSection(Section):
    """Bounds of the timing protocol; what is left open depends on the runtime.

    A latency beyond the default `max_cov` is kept and marked as noisy; beyond one that is set here, its trial fails.
    """

    warmup_ms: PositiveFloat = 200.0
    min_seconds: PositiveFloat = 2.0
    min_iterations: Positive | None = None
    max_cov: PositiveFloat | None = None
    attempts: Positive = 3

    def resolved(self, defaults: TimingDefaults) -> TimingSection:
        """All bounds as numbers; what the study leaves open is the runtime's."""
        return self.model_copy(
            update={
                "min_iterations": self.min_iterations or defaults.min_iterations,
                "max_cov": self.max_cov or defaults.max_cov,
            }
        )


class ConstraintsSection(Section):
    """Bounds that a scheme must keep to stand in the front.

    `max_drop` is in points of the study's accuracy, against the unquantized model on the search images.
    """

    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    min_map: PositiveFloat | None = None
    min_agreement: PositiveFloat | None = None
    max_latency_ms: PositiveFloat | None = None
    max_weight_mib: PositiveFloat | None = None


class ScreeningSection(Section):
    """A first look at the sampler's proposals.

    A proposal is run on `images` of the search images, always the same ones. If a scheme of the front that costs no
    more is more accurate there, by a paired bootstrap at this `confidence`, the other images are not run.
    """

    images: Annotated[int, Field(ge=16)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99


class SearchSection(Section):
    """Who proposes, from which seeds, and for how long.

    Of `seeds`, the unquantized scheme is always one; ``ladders`` keep the K most sensitive layers high. A sampler that
    learns from the first trial on is given few of them: see `tuner.samplers.opening`. With `patience`
    a study ends before its trials are done, once so many proposals gained nothing beyond noise. With `transfer` the
    search begins from what earlier studies of this user learned of the device's costs and the model's layers.
    """

    sampler: Sampler = "model"
    seeds: list[Literal["uniform", "knapsack", "ladders"]] = ["uniform", "knapsack"]
    trials: Positive = 100
    hours: PositiveFloat | None = None
    patience: Positive | None = None
    screening: ScreeningSection | None = None
    transfer: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


_OBJECTIVES = ["map_50_95", "latency_ms"]


def _labelled(images: Any, annotations: Any) -> bool:
    return annotations is not None or (isinstance(images, str) and Path(images).suffix.lower() in YAML_SUFFIXES)


class S3Section(Section):
    """A bucket of an S3-compatible server; credentials are found as boto3 finds them, and never lie in a study file."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$", max_length=500)] = ""
    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$")] | None = None


class ArtifactsSection(Section):
    """Where the dashboard's files are kept: the run folder, or a bucket."""

    s3: S3Section | None = None


#: A union told apart by `name`: each runtime brings its own keys.
RuntimeSection = Annotated[SerializeAsAny[RuntimeSettings], BeforeValidator(_runtime)]


class StudyConfig(Section):
    """A whole study file; after `tuner.study.study_file.read_study` every path in it is absolute."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    model: ModelSection
    data: DataSection = DataSection()
    space: SpaceSection = SpaceSection()
    calibration: CalibrationSection = CalibrationSection()
    weights: WeightsSection = WeightsSection()
    sensitivity: SensitivitySection = SensitivitySection()
    runtime: RuntimeSection = Field(default_factory=lambda: parse_settings({}))
    timing: TimingSection = TimingSection()
    objectives: list[Objective] = [*_OBJECTIVES]
    constraints: ConstraintsSection = ConstraintsSection()
    search: SearchSection = SearchSection()
    storage: Text | None = None
    artifacts: ArtifactsSection = ArtifactsSection()

    @model_validator(mode="before")
    @classmethod
    def _default_metrics(cls, study: Any) -> Any:
        """What is computed where the study does not say: what its accuracy is of, and COCO's where there are labels."""
        if not isinstance(study, dict) or not isinstance(study.get("data", {}), dict):
            return study
        data, names = study.get("data", {}), study.get("objectives", _OBJECTIVES)
        if "metrics" in data or not isinstance(names, list):
            return study
        known = [name for name in names if isinstance(name, str) and name in OBJECTIVES.names()]
        wanted = [OBJECTIVES.get(name).metric for name in known if OBJECTIVES.get(name).accuracy]
        labelled = _labelled(data.get("images"), data.get("annotations"))
        bounds = study.get("constraints")
        if isinstance(bounds, dict) and any(value is not None for value in bounds.values()):
            bounded = (each for each in map(OBJECTIVES.get, OBJECTIVES.names()) if each.accuracy and each.bound)
            asked = [each.metric for each in bounded if bounds.get(each.bound) is not None]
            wanted += [metric for metric in asked if labelled or LABELS not in METRICS.get(metric).needs]
            wanted = list(dict.fromkeys(wanted))
        usual = DEFAULT_METRICS if labelled else ()
        if not wanted or wanted == list(DEFAULT_METRICS):
            return study
        return {**study, "data": {**data, "metrics": list(dict.fromkeys([*usual, *wanted]))}}

    @model_validator(mode="before")
    @classmethod
    def _default_weights(cls, study: Any) -> Any:
        """Weights by what the runtime gains by, where the study does not say; the run's own file then says it."""
        if not isinstance(study, dict):
            return study
        weights, runtime = study.get("weights", {}), study.get("runtime", {})
        name = runtime.get("name") if isinstance(runtime, dict) else getattr(runtime, "name", None)
        if name not in RUNTIMES.names() or not isinstance(weights, dict) or "method" in weights:
            return study
        method = RUNTIMES.get(name).settings_type.weights_method
        return {**study, "weights": {**weights, "method": method}} if method != "auto" else study

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        data, accuracy = self.data, self.objective_set.maximised
        if self.runtime_type.artifacts:
            if data.images is None:
                raise ValueError("data.images: missing; give the folder of evaluation images")
            if not self.labelled and LABELS in METRICS.get(accuracy.metric).needs:
                raise ValueError(
                    "data.annotations: missing; give the COCO json of the evaluation images, or search without labels: "
                    "objectives: [agreement, ...]"
                )
        elif self.search.screening is not None:
            raise ValueError(f"search.screening: {self.runtime.name} has no images to look at first; leave it out")
        slow = [cost.name for cost in self.objective_set.costs if cost.quick is None]
        if self.search.screening is not None and slow:
            raise ValueError(f"search.screening: {slow[0]} is not known before a scheme is scored; leave it out")
        if self.sensitivity.method == "file" and self.sensitivity.file is None:
            raise ValueError("sensitivity.file: missing; method `file` needs a sensitivity.json")
        if isinstance(self.model.image_size, list) and len(self.model.image_size) != 2:
            raise ValueError("model.image_size: give one number, or [height, width]")
        return self

    @property
    def labelled(self) -> bool:
        """Whether the study names labels."""
        return _labelled(self.data.images, self.data.annotations)

    @property
    def objective_set(self) -> ObjectiveSet:
        """Objectives and constraints together."""
        return ObjectiveSet.of(self.objectives, self.constraints.model_dump())

    @property
    def runtime_type(self) -> type[Runtime]:
        """The class of its runtime, which says what holds whatever the device."""
        return RUNTIMES.get(self.runtime.name)
