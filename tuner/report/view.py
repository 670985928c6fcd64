"""What the report says of a run, derived once from its records and used by figures, tables and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from objectives.objective import Objective, milliseconds
from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from tuner.search.front import recommendation, settled
from tuner.search.recommendation import Recommendation, recommend
from tuner.search.records import (
    NOISY_MARK,
    Baseline,
    BaselineOutcome,
    FailedBaseline,
    FrontMember,
    Rescore,
    RunSummary,
    TrialRecord,
)
from tuner.search.telling_apart import Contender
from tuner.terminal import units

Interval = tuple[float, float]


@dataclass(frozen=True)
class Standing:
    """The latest figures of one scheme: what was measured after the search, where it was, else what the search saw.

    Attributes:
        change: Accuracy minus the unquantized model's, in [-1, 1].
        change_interval: 95 % interval of it, paired; None where it is not known.
        cost: On the axis of the figures.
        cost_interval: Of what is timed; None where it is exact or not known.
        latency_ms: None where the study times nothing.
        latency_interval: Milliseconds; None where it is not known.
        speedup: Over the unquantized model; None where the study times nothing.
        noisy: Whether the machine was while it was timed.
    """

    change: float
    change_interval: Interval | None
    cost: float
    cost_interval: Interval | None
    latency_ms: float | None
    latency_interval: Interval | None
    speedup: float | None
    noisy: bool

    @property
    def change_text(self) -> str:
        """``−0.4 (−1.2 to +0.4)``, points."""
        bounds = f" ({units.interval(*self.change_interval)})" if self.change_interval else ""
        return units.change(self.change) + bounds

    @property
    def latency_text(self) -> str:
        """``3.79 (3.70 to 3.88)``, milliseconds; empty where nothing was timed."""
        if self.latency_ms is None:
            return ""
        text = milliseconds(self.latency_ms) + NOISY_MARK * self.noisy
        if self.latency_interval is None:
            return text
        low, high = map(milliseconds, self.latency_interval)
        return f"{text} ({low} to {high})"


@dataclass(frozen=True)
class Run:
    """The inputs of a report with the figures derived from them.

    Attributes:
        summary: Facts of the run.
        records: All trials.
        members: The front, from the cheapest to the dearest in `cost`.
        baselines: Points to compare with.
        failed_baselines: Those that came to nothing.
        rescores: ``{allocation digest: rescore}`` of any scheme.
    """

    summary: RunSummary
    records: tuple[TrialRecord, ...]
    members: tuple[FrontMember, ...]
    baselines: tuple[Baseline, ...]
    failed_baselines: tuple[FailedBaseline, ...] = ()
    rescores: Mapping[str, Rescore] = field(default_factory=dict)

    @staticmethod
    def of(
        summary: RunSummary,
        records: Sequence[TrialRecord],
        front: Sequence[FrontMember],
        baselines: Sequence[BaselineOutcome],
        rescores: Mapping[str, Rescore] | None = None,
    ) -> Run:
        """Builds the view; front members without scores are left out."""
        measured = tuple(one for one in baselines if isinstance(one, Baseline))
        failed = tuple(one for one in baselines if isinstance(one, FailedBaseline))
        run = Run(summary, tuple(records), (), measured, failed, rescores or {})
        scored = [member for member in front if member.record.scores is not None]
        scored.sort(key=run.latest_cost)
        return replace(run, members=tuple(scored))

    @property
    def timed(self) -> bool:
        """Whether latency is an objective."""
        return self.objectives.timed

    @property
    def objectives(self) -> ObjectiveSet:
        """Objectives and bounds of the study, as far as its reference is known."""
        wanted, reference = self.summary.objective_set, self.reference
        return wanted if reference is None else wanted.against(scores_of(reference))

    @property
    def goal(self) -> Objective:
        """The accuracy that is searched by."""
        return self.objectives.maximised

    def accuracy(self, record: TrialRecord) -> float:
        """That of a complete trial, in [0, 1]."""
        return self.goal.value(scores_of(record))

    @property
    def shown(self) -> tuple[FrontMember, ...]:
        """Members that noise can tell apart."""
        return tuple(member for member in self.members if member.folded_under is None)

    def folded(self, member: FrontMember) -> tuple[FrontMember, ...]:
        """Members that are folded under a shown one."""
        return tuple(each for each in self.members if each.folded_under == member.record.number)

    @property
    def twinned(self) -> bool:
        """Whether front members were also scored in ONNX Runtime, as the runtime is another."""
        return any(member.rescore is not None and member.rescore.onnxruntime is not None for member in self.members)

    @property
    def unseen(self) -> bool:
        """Whether front members were also scored on images that the search never saw."""
        return any(
            member.rescore is not None and member.rescore.unseen_difference is not None for member in self.members
        )

    @cached_property
    def unquantized(self) -> Scores | None:
        """Scores of the unquantized model."""
        return self.summary.reference or (self.reference.scores if self.reference is not None else None)

    def member(self, record: TrialRecord) -> FrontMember:
        """A complete trial with what was measured again of it."""
        known = {each.record.number: each for each in self.members}
        return known.get(record.number) or FrontMember(record, self.rescores.get(record.allocation.digest))

    def standing(self, member: FrontMember) -> Standing:
        """The latest figures of a scheme.

        Raises:
            ValueError: The run has no reference; then it has no scores either.
        """
        base = self.unquantized
        if base is None:
            raise ValueError("a run without a reference has no scores")
        scores = settled(member, base, self.goal)
        axis, cost, spread = self.objectives.axis, 0.0, member.latency_interval
        cost = axis.value(scores)
        latency = cost_interval = latency_interval = speedup = None
        if self.timed and scores.latency is not None and base.latency_ms > 0 and scores.latency_ms > 0:
            latency, speedup = scores.latency_ms, base.latency_ms / scores.latency_ms
            if spread is not None:
                latency_interval = (spread[0] * base.latency_ms, spread[1] * base.latency_ms)
                if axis.timed:
                    cost_interval = (cost * spread[0] * speedup, cost * spread[1] * speedup)
        change = self.goal.value(scores) - self.goal.value(base) if member.loss is None else -member.loss
        return Standing(
            change,
            member.change_interval if member.rescore is not None else None,
            cost,
            cost_interval,
            latency,
            latency_interval,
            speedup,
            member.noisy,
        )

    def scores(self, member: FrontMember) -> Scores:
        """The latest scores of a scheme, on the scales of the search."""
        return settled(member, self.unquantized or scores_of(member.record), self.goal)

    def latest_cost(self, member: FrontMember) -> float:
        """The cost of a member, by its latency as measured again where it was."""
        return self.standing(member).cost if self.unquantized is not None else self.cost(scores_of(member.record))

    @property
    def cost_title(self) -> str:
        """Title of the cost axis."""
        return self.objectives.axis.title

    def cost(self, scores: Scores) -> float:
        """Value on the cost axis: the latency, or another cost where that is no objective."""
        return self.objectives.axis.value(scores)

    @property
    def drawn_baselines(self) -> tuple[Baseline, ...]:
        """Baselines of which the cost on the axis is known."""
        return tuple(baseline for baseline in self.baselines if self.baseline_cost(baseline) > 0)

    def baseline_cost(self, baseline: Baseline) -> float:
        """`cost` of a baseline; 0 where it is not known."""
        return baseline.costs.get(self.objectives.axis.name, 0.0)

    def baseline_change(self, baseline: Baseline) -> float:
        """Accuracy of a baseline minus the unquantized model's, on the search images; 0 without a reference."""
        return baseline.accuracy - self.goal.value(self.unquantized) if self.unquantized is not None else 0.0

    @cached_property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Trials with scores."""
        return tuple(record for record in self.records if record.scores is not None)

    def broken_bounds(self, record: TrialRecord) -> tuple[str, ...]:
        """Names of the constraints that a complete trial breaks, ``broken`` aside."""
        found = self.objectives.violations(scores_of(record))
        return tuple(name for name, excess in found.items() if excess > 0 and name != "broken")

    @cached_property
    def failed(self) -> tuple[TrialRecord, ...]:
        """Trials without scores that ended."""
        return tuple(r for r in self.records if r.scores is None and (r.failure or r.state == "FAIL"))

    @cached_property
    def screened(self) -> tuple[TrialRecord, ...]:
        """Trials that were not scored in full."""
        return tuple(record for record in self.records if record.screened is not None)

    @cached_property
    def reference(self) -> TrialRecord | None:
        """The unquantized trial, if it is among the records."""
        named = [record for record in self.complete if record.origin == "reference"]
        return next(iter(named or [r for r in self.complete if r.allocation.unquantized]), None)

    @cached_property
    def uniform(self) -> tuple[FrontMember, ...]:
        """Complete trials of one format wherever it may stand, but for the reference."""
        return tuple(self.member(record) for record in self.complete if record.origin.startswith("uniform:"))

    @cached_property
    def recommendation(self) -> Recommendation | None:
        """The front's answer."""
        if self.unquantized is None:
            return None
        return recommendation(self.members, self.unquantized, self.summary.objective_set)

    @cached_property
    def best_uniform(self) -> Recommendation | None:
        """What the same rule would take of the uniform schemes, that is without a search; broken ones left out."""
        base = self.unquantized
        if base is None:
            return None
        kept = [each for each in self.uniform if self.objectives.feasible(scores_of(each.record))]
        contenders = [Contender(each, settled(each, base, self.goal)) for each in kept]
        return recommend(contenders, self.summary.objective_set, self.goal.value(base))

    @cached_property
    def named(self) -> FrontMember | None:
        """The member that the answer names: recommended, or the nearest where none is."""
        return self.recommendation.member if self.recommendation is not None else None

    def speedup(self, scores: Scores) -> float | None:
        """How many times faster than the reference, as the search saw it; None without latency."""
        if scores.latency is None or not self.timed or scores.latency.ratio <= 0:
            return None
        return 1 / scores.latency.ratio

    def search_difference(self, scores: Scores) -> float | None:
        """Accuracy minus the reference's on the search images, in [-1, 1]."""
        if self.unquantized is None:
            return None
        return self.goal.value(scores) - self.goal.value(self.unquantized)

    @staticmethod
    def size_share(scores: Scores) -> float | None:
        """Weight bytes over those of the same weights in fp32."""
        return scores.size.weight_bytes / (4 * scores.size.parameters) if scores.size.parameters else None


def scores_of(record: TrialRecord) -> Scores:
    """The scores of a complete trial."""
    if record.scores is None:
        raise ValueError(f"trial {record.number} has no scores")
    return record.scores


def scored_on(member: FrontMember) -> str:
    """Which images the accuracy of a scheme is from; empty of replayed scores, which are from none."""
    images = scores_of(member.record).accuracy.images
    if member.rescore is not None:
        return f"on all {member.rescore.full.images} evaluation images"
    return f"on the {images} search images" if images else ""


def uniform_name(record: TrialRecord) -> str:
    """What a uniform scheme is called: ``all int8``."""
    return f"all {record.origin.removeprefix('uniform:')}"
