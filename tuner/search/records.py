"""What a run holds, as the front, the report and the terminal read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any

from pydantic import model_validator

from objectives.objective import LATENCY_MS, MAP_50_95, MIB, OBJECTIVES, WEIGHT_MIB, milliseconds
from objectives.objective_set import ObjectiveSet
from objectives.scores import Accuracy, Failure, Latency, Scores, Screened
from search_spaces.allocation import Allocation
from tuner.study.config import ConstraintsSection
from tuner.terminal import units

#: Behind a latency that was measured on a noisy machine.
NOISY_MARK = "~"


def noise_of(latency: Latency | None, unit: float) -> str:
    """``noisy, 31.2 to 39.9 ms`` of a latency that was not steady; empty of any other.

    Args:
        latency: As measured.
        unit: Milliseconds that a ratio of 1 stands for.
    """
    if latency is None or not latency.noisy:
        return ""
    low, high = latency.interval or (latency.ratio, latency.ratio)
    return f"noisy, {milliseconds(unit * low)} to {milliseconds(unit * high)} ms"


def scheme_name(number: int) -> str:
    """How a scheme is called: ``12`` of a trial, ``12-refined`` of ``~12``, which was refined from it."""
    return str(number) if number >= 0 else f"{~number}-refined"


@dataclass(frozen=True)
class TrialRecord:
    """One trial of the study.

    Attributes:
        number: Optuna's trial number; ``~12`` of what was refined from trial 12.
        state: ``COMPLETE``, ``PRUNED`` (it was screened), ``FAIL``, ``RUNNING`` or ``WAITING``.
        origin: What proposed it: ``reference``, ``uniform:int8``, ``ladder:int8:20``, ``knapsack:3``, ``sampler``.
        allocation: The scheme.
        scores: None unless complete.
        failure: None unless failed.
        screened: None unless screened.
    """

    number: int
    state: str
    origin: str
    allocation: Allocation
    scores: Scores | None = None
    failure: Failure | None = None
    screened: Screened | None = None

    @property
    def refined(self) -> bool:
        """Whether its numbers are refined: a scheme beside the trials, of the formats of one of them."""
        return self.allocation.numbers != ""

    @property
    def trial(self) -> int:
        """Number of the trial that it is, or was refined from."""
        return self.number if self.number >= 0 else ~self.number

    @property
    def name(self) -> str:
        """``12`` of a trial, ``12-refined`` of what was refined from it."""
        return scheme_name(self.number)

    @property
    def noisy(self) -> bool:
        """Whether its latency was measured on a noisy machine."""
        found = self.scores or self.screened
        return found is not None and found.latency is not None and found.latency.noisy


@dataclass(frozen=True)
class Rescore:
    """What was measured again of a scheme, once the search was over.

    Attributes:
        full: On all evaluation images.
        unseen: On the evaluation images that the search never saw; None where there are none.
        difference: Accuracy minus the reference's on all evaluation images (negative is a loss), in [-1, 1].
        interval: Paired bootstrap 95 % interval (low, high) of `difference` over images.
        unseen_difference: The same on the unseen images; None where there are none.
        unseen_interval: Its interval; None where there are none.
        onnxruntime: Of the same ONNX in ONNX Runtime's CPU on all evaluation images; None where that is the runtime.
        ratios: Median paired latency ratio to the reference in each round of repeated timing; empty where none was.
        ratio_intervals: 95 % interval (low, high) of each of them; empty in older runs.
        noisy_rounds: How many of them were measured on a noisy machine.
        resampled: `difference` on each bootstrap resample of the images, the same resamples for every scheme of a run:
            the difference of two schemes' is paired. Empty in older runs.
    """

    full: Accuracy
    unseen: Accuracy | None
    difference: float
    interval: tuple[float, float]
    unseen_difference: float | None = None
    unseen_interval: tuple[float, float] | None = None
    onnxruntime: Accuracy | None = None
    ratios: tuple[float, ...] = ()
    noisy_rounds: int = 0
    ratio_intervals: tuple[tuple[float, float], ...] = ()
    resampled: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object; accuracies are flat in it."""
        return {
            field.name: value.to_json() if isinstance(value, Accuracy) else value
            for field in fields(self)
            for value in [getattr(self, field.name)]
        }

    @property
    def latency_ratio(self) -> float | None:
        """Median of the rounds; None where the latency was not measured again."""
        return float(median(self.ratios)) if self.ratios else None

    @property
    def latency_interval(self) -> tuple[float, float] | None:
        """What `latency_ratio` may be: the rounds' range and the 95 % interval of a round; None where neither is known.

        Of three rounds neither says enough alone: they may agree by luck, and a round knows nothing of a drift.
        """
        lows, highs = ([pair[end] for pair in self.ratio_intervals] for end in (0, 1))
        known = [*self.ratios, *([median(lows), median(highs)] if lows else [])]
        return (float(min(known)), float(max(known))) if len(known) > 1 else None


@dataclass(frozen=True)
class FrontMember:
    """One scheme of the Pareto front.

    Attributes:
        record: Its trial; `record.scores` is never None.
        rescore: None until the front was re-scored.
        recommended: Whether it is the one to ship, see `tuner.search.recommendation`.
        knee: Whether it lies where the front bends most, see `tuner.search.front.knee`.
        nearest: Whether no member is to be recommended, for none surely keeps the budget, and this one comes nearest.
        folded_under: Trial of the member beside which noise leaves it no advantage; None of members to be shown.
    """

    record: TrialRecord
    rescore: Rescore | None = None
    recommended: bool = False
    knee: bool = False
    folded_under: int | None = None
    nearest: bool = False

    @property
    def loss(self) -> float | None:
        """Accuracy lost on all evaluation images, in [-1, 1]; None until it was scored again."""
        return -self.rescore.difference if self.rescore is not None else None

    @property
    def change_interval(self) -> tuple[float, float] | None:
        """95 % interval of the change against the unquantized model, which itself has none; None until scored again."""
        if self.rescore is not None:
            return self.rescore.interval
        return (0.0, 0.0) if self.record.allocation.unquantized else None

    @property
    def loss_interval(self) -> tuple[float, float] | None:
        """The same of `loss`."""
        return None if self.change_interval is None else (-self.change_interval[1], -self.change_interval[0])

    @property
    def latency_interval(self) -> tuple[float, float] | None:
        """Interval of the latency as a share of the reference's, by the rounds where it was timed again."""
        again = self.rescore.latency_interval if self.rescore is not None else None
        scores = self.record.scores
        return again or (scores.latency.interval if scores is not None and scores.latency is not None else None)

    @property
    def noisy(self) -> bool:
        """Whether any of its latencies was measured on a noisy machine."""
        return self.record.noisy or (self.rescore is not None and self.rescore.noisy_rounds > 0)


@dataclass(frozen=True)
class Baseline:
    """A point to compare with that the search did not propose, e.g. ONNX Runtime's static quantization.

    Attributes:
        name: Shown in figures.
        accuracy: On the search images, in the figure that the study searches by.
        latency_ms: Paired latency in the study's milliseconds; 0 where the study times nothing.
        weight_bytes: Bytes of the weights; 0 where unknown.
        noisy: Whether its latency was measured on a noisy machine.
        figure: Name of that figure.
    """

    name: str
    accuracy: float
    latency_ms: float
    weight_bytes: int = 0
    noisy: bool = False
    figure: str = MAP_50_95.name

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object that has the accuracy under the name of its figure."""
        facts = {"latency_ms": self.latency_ms, "weight_bytes": self.weight_bytes, "noisy": self.noisy}
        return {"name": self.name, self.figure: self.accuracy, **facts}

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: object) -> object:
        """What `record_of` makes of that form."""
        known = {each.name for each in fields(cls)}
        other = [name for name in data if name not in known] if isinstance(data, Mapping) else []
        if not isinstance(data, Mapping) or len(other) != 1 or other[0] not in OBJECTIVES.names():
            return data
        return {**{key: data[key] for key in data if key in known}, "figure": other[0], "accuracy": data[other[0]]}

    @property
    def costs(self) -> dict[str, float]:
        """``{objective: value}`` of what is known of it."""
        return {LATENCY_MS.name: self.latency_ms, WEIGHT_MIB.name: self.weight_bytes / MIB}

    def __str__(self) -> str:
        """One line: what is known of it."""
        facts = [f"{OBJECTIVES.get(self.figure).label} {units.accuracy(self.accuracy)} points"]
        facts += [f"{milliseconds(self.latency_ms)} ms" + " (noisy)" * self.noisy] if self.latency_ms else []
        facts += [f"{units.mib(self.weight_bytes)} MiB"] if self.weight_bytes else []
        return f"{self.name}: {', '.join(facts)}"


@dataclass(frozen=True)
class FailedBaseline:
    """A baseline that came to nothing.

    Attributes:
        name: Shown in the report.
        failure: Why.
    """

    name: str
    failure: Failure

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return {"name": self.name, "failure": self.failure.to_json()}

    def __str__(self) -> str:
        """One line: what went wrong."""
        return f"{self.name}: failed: {self.failure.message}"


#: What comes of measuring a baseline.
BaselineOutcome = Baseline | FailedBaseline


@dataclass(frozen=True)
class Preview:
    """One evaluation image with detections drawn side by side.

    Attributes:
        name: File name of the image.
        reference_jpeg: JPEG bytes, the reference model's detections.
        scheme_jpeg: JPEG bytes, the recommended scheme's detections.
    """

    name: str
    reference_jpeg: bytes
    scheme_jpeg: bytes


@dataclass(frozen=True)
class RunSummary:
    """Facts of a run shown at the head of the report.

    Attributes:
        name: Study name.
        model: File name and digest of the model.
        facts: ``{label: text}``: machine, runtime, threads, images, sampler, seeds, versions, time.
        objectives: Names, e.g. ``("map_50_95", "latency_ms")``.
        hypervolume: Hypervolume after each complete trial, in order of completion.
        bounds: Constraints that a scheme must keep to stand in the front.
        reference: Scores of the unquantized model; None before they are known.
        state: Sentences on how it went, where the study is not over or ran otherwise than on its target; else empty.
    """

    name: str
    model: str
    facts: Mapping[str, str] = field(default_factory=dict)
    objectives: tuple[str, ...] = ("map_50_95", "latency_ms")
    hypervolume: tuple[float, ...] = ()
    bounds: ConstraintsSection = field(default_factory=ConstraintsSection)
    reference: Scores | None = None
    state: str = ""

    @property
    def objective_set(self) -> ObjectiveSet:
        """Objectives and bounds together."""
        return ObjectiveSet.of(self.objectives, self.bounds.model_dump())
