"""The objectives of a study: what each is, how a result tells it, and what the search must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from objectives.scores import Latency, Scores, Screened, Size
from search_spaces.registry import Registry

MIB = float(2**20)


@dataclass(frozen=True)
class Objective:
    """One quantity that a study optimises or bounds.

    Exactly one objective of a study is maximised, its accuracy: the figure of its name that a metric yields, in [0, 1].
    All others are costs, positive and minimised: what is better the larger it is, is told as its cost (milliseconds per
    image, not images per second).

    Attributes:
        name: In study files and in the study.
        label: For people, e.g. ``latency``.
        unit: Of the values, e.g. ``ms``; empty for a share.
        direction: Of the better values.
        value: Reads the value from a result; of a screened scheme, what is expected of it. A function of a module, so
            that it can be sent to another process.
        worst: What still counts in the hypervolume, as a share of the reference's value.
        prior: What tells before the first trial what a choice is expected to change: the sensitivities of an accuracy;
            of a cost the table that it goes along with, that of latencies or that of bytes of the weights.
        text: A value as tables show it, without its unit.
        bound: Key of ``constraints`` that bounds it; empty where none does.
        timed: Whether schemes must be timed to know it.
        built: Whether engines must be built to know it.
        quick: Of a cost, a figure of the same order that is known before the accuracy is; None where there is none,
            and then a study cannot screen. A function of a module, as `value`.
        note: Stands behind the title of an axis, in brackets.
        short: For a narrow place; empty where `label` is short enough.
        metric: Of an accuracy, the metric that yields it, as its first figure.
    """

    name: str
    label: str
    unit: str
    direction: Literal["maximize", "minimize"]
    value: Callable[[Scores | Screened], float]
    worst: float
    prior: Literal["sensitivity", "latency", "weights"]
    text: Callable[[float], str]
    bound: str = ""
    timed: bool = False
    built: bool = False
    quick: Callable[[Latency | None, Size], float] | None = None
    note: str = ""
    short: str = ""
    metric: str = "coco_box"

    @property
    def brief(self) -> str:
        """For a narrow place."""
        return self.short or self.label

    @property
    def accuracy(self) -> bool:
        """Whether it is the one to be maximised."""
        return self.direction == "maximize"

    @property
    def title(self) -> str:
        """Of an axis or a column."""
        return ", ".join(filter(None, (self.label, self.unit))) + (f" ({self.note})" if self.note else "")

    def loss(self, value: float, reference: float) -> float:
        """A value as a coordinate to be minimised: an accuracy negated, a cost as a share of the reference's."""
        return -value if self.accuracy else value / reference

    def excess(self, value: float, bound: float) -> float:
        """By how much a value breaks a bound; not positive where it keeps it."""
        return bound - value if self.accuracy else value - bound


def milliseconds(value: float) -> str:
    """A latency to three digits or to a tenth of a millisecond: ``0.379``, ``3.79``, ``37.9``, ``379.1``."""
    return f"{value:.{3 if value < 0.9995 else 2 if value < 9.995 else 1}f}"


def _figure(name: str, result: Scores | Screened) -> float:
    """The figure of an accuracy, of a screened scheme as the first look expects it."""
    return result.look.expected if isinstance(result, Screened) else result.accuracy.figure(name)


def _latency_ms(result: Scores | Screened) -> float:
    return result.latency_ms


def _ratio(latency: Latency | None, size: Size) -> float:
    # A latency in the study's milliseconds is this times the reference's, equal for all.
    return latency.ratio if latency else 0.0


def _weight_mib(result: Scores | Screened) -> float:
    return result.size.weight_bytes / MIB


def _engine_mib(result: Scores | Screened) -> float:
    return result.engine_bytes / MIB


def _bytes(latency: Latency | None, size: Size) -> float:
    return float(size.weight_bytes)


MAP_50_95 = Objective(
    name="map_50_95",
    label="mAP50-95",
    unit="",
    direction="maximize",
    value=partial(_figure, "map_50_95"),
    worst=0.5,  # who loses half of the accuracy adds nothing
    prior="sensitivity",
    text="{:.4f}".format,
    bound="min_map",
    short="mAP",
)

MAP_50_95_MASK = replace(
    MAP_50_95,
    name="map_50_95_mask",
    label="mask mAP50-95",
    value=partial(_figure, "map_50_95_mask"),
    bound="",
    short="mask mAP",
    metric="coco_segm",
)

MAP_50_95_KEYPOINTS = replace(
    MAP_50_95,
    name="map_50_95_keypoints",
    label="keypoint mAP50-95",
    value=partial(_figure, "map_50_95_keypoints"),
    bound="",
    short="keypoint mAP",
    metric="coco_keypoints",
)

LATENCY_MS = Objective(
    name="latency_ms",
    label="latency",
    unit="ms",
    direction="minimize",
    value=_latency_ms,
    worst=1.1,  # who gains nothing adds nothing
    prior="latency",
    text=milliseconds,
    bound="max_latency_ms",
    timed=True,
    quick=_ratio,
    note="paired with the reference",
)

WEIGHT_MIB = Objective(
    name="weight_mib",
    label="weight size",
    unit="MiB",
    direction="minimize",
    value=_weight_mib,
    worst=1.1,
    prior="weights",
    text="{:.2f}".format,
    bound="max_weight_mib",
    quick=_bytes,
    short="weights",
)

ENGINE_MIB = Objective(
    name="engine_mib",
    label="engine size",
    unit="MiB",
    direction="minimize",
    value=_engine_mib,
    worst=1.5,  # engines of quantized layers also hold more kernels
    prior="weights",
    text="{:.2f}".format,
    built=True,
    short="engine",
)

#: Objectives by name; a package adds its own as an entry point that names an `Objective`.
OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    {
        "map_50_95": "objectives.objective:MAP_50_95",
        "map_50_95_mask": "objectives.objective:MAP_50_95_MASK",
        "map_50_95_keypoints": "objectives.objective:MAP_50_95_KEYPOINTS",
        "agreement": "objectives.agreement:AGREEMENT",
        "latency_ms": "objectives.objective:LATENCY_MS",
        "weight_mib": "objectives.objective:WEIGHT_MIB",
        "engine_mib": "objectives.objective:ENGINE_MIB",
    },
    "tuner.objectives",
)
