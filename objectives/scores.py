"""What one evaluation found. Results carry their units; a failure is a value, not an exception."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import model_validator

from objectives.devices.gpu import GpuState
from search_spaces.errors import InputError
from search_spaces.reading import record_of


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Figures of one model on one image set.

    As JSON it is flat, ``{"map_50_95": 0.4, ..., "images": 128}``; so it is read, too.

    Attributes:
        metrics: ``{name: value}``. Names that begin with ``map_`` are average precisions in [0, 1], or -1 where the
            images have no such objects.
        images: Number of images scored.
    """

    metrics: Mapping[str, float]
    images: int

    @property
    def map_50_95(self) -> float:
        """AP averaged over IoU 0.50:0.95."""
        return self.metrics["map_50_95"]

    @property
    def map_50(self) -> float:
        """AP at IoU 0.50."""
        return self.metrics["map_50"]

    def figure(self, name: str) -> float:
        """The figure of that name, e.g. that of a study's accuracy.

        Raises:
            InputError: It was not computed, or is missing from a file.
        """
        if name not in self.metrics:
            raise InputError(f"scores: {name}: field required, there are {', '.join(self.metrics)}; restore the file")
        return self.metrics[name]

    def to_json(self) -> dict[str, Any]:
        """Returns a flat JSON object."""
        return {**self.metrics, "images": self.images}

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, data: object) -> object:
        """What `record_of` makes of the flat form."""
        if not isinstance(data, Mapping):
            return data
        flat = {**data, **data["metrics"]} if isinstance(data.get("metrics"), Mapping) else data
        metrics = {name: value for name, value in flat.items() if name not in ("images", "metrics")}
        if not metrics:
            raise ValueError("no figure is there")
        return {"metrics": metrics} | ({"images": flat["images"]} if "images" in flat else {})


@dataclass(frozen=True)
class Latency:
    """Time of one inference of one batch, paired with the reference model in the same process.

    Attributes:
        p50_ms: Median, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        p99_ms: 99th percentile, milliseconds.
        mean_ms: Mean, milliseconds.
        cov: Coefficient of variation (standard deviation / mean) of the kept iterations.
        iterations: Number of timed iterations.
        ratio: Median of candidate time / reference time over neighbouring iterations; 1 without a reference.
        reference_p50_ms: Median of the reference in the same measurement, milliseconds; p50_ms without one.
        attempts: Measurements it took to get a stable one.
        method: What timed it: ``clock``, ``cuda graph`` or ``cuda stream``.
        state: Of the GPU right after the measurement; None on a CPU.
        noisy: Whether no attempt was steady; the figures are then those of all attempts together.
        ratio_low: Lower end of the 95 % interval of `ratio`; None in runs that did not record it.
        ratio_high: Its upper end. Without a reference both are shares of `p50_ms`.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    cov: float
    iterations: int
    ratio: float
    reference_p50_ms: float
    attempts: int = 1
    method: str = "clock"
    state: GpuState | None = None
    noisy: bool = False
    ratio_low: float | None = None
    ratio_high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of `ratio`."""
        return None if self.ratio_low is None or self.ratio_high is None else (self.ratio_low, self.ratio_high)


@dataclass(frozen=True)
class Size:
    """Weight size of one artifact.

    Attributes:
        weight_bytes: Bytes of all layer weights as their formats store them (int4 packed), scales and zero points
            included, biases not.
        average_weight_bits: 8 x weight_bytes / weight elements.
        parameters: Weight elements.
    """

    weight_bytes: int
    average_weight_bits: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All that was measured of one allocation.

    Attributes:
        accuracy: On the search images.
        latency: None where the study has no latency objective.
        size: Of the artifact.
        latency_ms: The objective: the study's reference latency x `latency.ratio`, milliseconds.
        agreement: Label-free agreement with the reference's detections in [0, 1]; 1 is identical.
        artifact: SHA-256 of the serialized model.
        broken: Whether the accuracy is below 10 % of the reference's.
        seconds: Wall time of each step: materialize, build, time, look, compare, evaluate.
        reused: Id of the run that accuracy and agreement are from; empty where they were scored here.
        engine_bytes: Size of the built engine; 0 where the runtime builds none, or the run is from before 2026-11-28.
        engine: SHA-256 of the engine that was scored and timed, hex; empty likewise.
    """

    accuracy: Accuracy
    latency: Latency | None
    size: Size
    latency_ms: float
    agreement: float
    artifact: str
    broken: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    reused: str = ""
    engine_bytes: int = 0
    engine: str = ""

    @property
    def metrics(self) -> Mapping[str, float]:
        """``{name: value}`` of every accuracy metric of the study."""
        return self.accuracy.metrics

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return {**asdict(self), "accuracy": self.accuracy.to_json()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Scores:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `data` is something else.
        """
        return record_of(Scores, data, "scores")


@dataclass(frozen=True)
class FirstLook:
    """How a scheme compares on a part of the search images with its leader, one that costs no more.

    Attributes:
        leader: Allocation digest of the leader: of the schemes that are no dearer in any cost, the most accurate.
        images: Images that were looked at.
        total: All search images.
        difference: Of the study's accuracy, minus the leader's on these images, in [-1, 1].
        upper: Upper bound of `difference` by a paired bootstrap over these images.
        confidence: Of the bound.
        expected: Accuracy on all images: the leader's plus `difference`.
    """

    leader: str
    images: int
    total: int
    difference: float
    upper: float
    confidence: float
    expected: float

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, data: object) -> object:
        """Reads what runs kept when mAP50-95 was the only accuracy."""
        if not isinstance(data, Mapping) or "map_50_95" not in data:
            return data
        return {"expected" if name == "map_50_95" else name: value for name, value in data.items()}

    @property
    def dominated(self) -> bool:
        """Whether the leader is more accurate, by all that can be said with that confidence."""
        return self.upper < 0


@dataclass(frozen=True, kw_only=True)
class Screened:
    """A scheme that was not scored in full, for a first look showed that it is dominated.

    Attributes:
        look: What it showed.
        latency: None where the study has no latency objective.
        size: Of the artifact.
        latency_ms: As of `Scores`.
        agreement: As of `Scores`, on the images of the first look.
        artifact: SHA-256 of the serialized model.
        seconds: Wall time of each step: materialize, build, time, look, compare.
        engine_bytes: As of `Scores`.
        engine: As of `Scores`.
    """

    look: FirstLook
    latency: Latency | None
    size: Size
    latency_ms: float
    agreement: float
    artifact: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    engine_bytes: int = 0
    engine: str = ""

    @property
    def saved(self) -> float:
        """Seconds that the other images would have taken, at the pace of the first."""
        return self.seconds.get("look", 0.0) * (self.look.total - self.look.images) / self.look.images

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Failure:
    """Why an allocation has no scores.

    Attributes:
        kind: ``build``, ``crash``, ``device`` (a CUDA error that ends the process), ``timeout``, ``memory``,
            ``unstable``, ``nan``, ``no_detections``, ``impossible`` (a score outside its range), ``lost`` (its worker
            died with it again and again), ``error``.
        message: One line.
        log: File that holds the full log, relative to the run folder; empty where there is none.
        layer: The model layer whose format the runtime could not build; empty where none is known.
    """

    kind: str
    message: str
    log: str = ""
    layer: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return asdict(self)


#: What an evaluation comes to.
Outcome = Scores | Screened | Failure
Some = TypeVar("Some", bound=Outcome)


def checked(result: Some) -> Some | Failure:
    """Returns scores that can be, and a failure in place of those that cannot.

    No study may learn from a NaN, from a latency that is not positive, or from a share outside [0, 1].
    """
    if isinstance(result, Failure):
        return result
    latency = result.latency
    metrics = {} if isinstance(result, Screened) else result.metrics
    shares = {name: value for name, value in metrics.items() if _is_share(name, value)}
    shares["agreement"] = result.agreement
    if isinstance(result, Screened):
        shares["expected accuracy"] = result.look.expected
    times = {"latency_ms": result.latency_ms} if latency is not None else {}
    if latency is not None:
        times |= {"p50_ms": latency.p50_ms, "latency_ratio": latency.ratio}
    sizes = {"average_weight_bits": result.size.average_weight_bits, "weight_bytes": float(result.size.weight_bytes)}
    for name, value in {**metrics, **shares, **times, **sizes}.items():
        if not math.isfinite(value):
            return Failure("nan", f"{name} is {value}")
    for name, value in shares.items():
        if not -1e-9 <= value <= 1 + 1e-9:
            return Failure("impossible", f"{name} is {value}, outside [0, 1]")
    for name, value in times.items():
        if value <= 0:
            return Failure("impossible", f"{name} is {value}, not above 0")
    for name, value in sizes.items():
        if value < 0:
            return Failure("impossible", f"{name} is {value}, below 0")
    return result


def _is_share(name: str, value: float) -> bool:
    """Whether a figure must lie in [0, 1]: average precisions, but -1 says of one that there are no such objects."""
    return name in ("map_50_95", "map_50") or (name.startswith("map_") and value != -1)
