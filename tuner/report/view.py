"""What the report says of a run, derived once from its records and used by figures, tables and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from objectives.objective import Objective
from objectives.objective_set import ObjectiveSet
from objectives.scores import Scores
from tuner.search.records import Baseline, BaselineOutcome, FailedBaseline, FrontMember, RunSummary, TrialRecord


def points(value: float) -> str:
    """A difference of accuracies in points with its sign, e.g. ``-0.4`` for -0.004."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded):.1f}"


def percent(value: float) -> str:
    """An accuracy in points, e.g. ``43.2`` for 0.432; a dash where COCO has none (-1)."""
    return f"{100 * value:.1f}" if value >= 0 else "–"


def interval_text(low: float, high: float) -> str:
    """An interval of differences, in points."""
    return f"{points(low)} to {points(high)}"


@dataclass(frozen=True)
class Run:
    """The inputs of a report with the figures derived from them.

    Attributes:
        summary: Facts of the run.
        records: All trials.
        members: The front, from the cheapest to the dearest in `cost`.
        baselines: Points to compare with.
        failed_baselines: Those that came to nothing.
    """

    summary: RunSummary
    records: tuple[TrialRecord, ...]
    members: tuple[FrontMember, ...]
    baselines: tuple[Baseline, ...]
    failed_baselines: tuple[FailedBaseline, ...] = ()

    @staticmethod
    def of(
        summary: RunSummary,
        records: Sequence[TrialRecord],
        front: Sequence[FrontMember],
        baselines: Sequence[BaselineOutcome],
    ) -> Run:
        """Builds the view; front members without scores are left out."""
        measured = tuple(one for one in baselines if isinstance(one, Baseline))
        failed = tuple(one for one in baselines if isinstance(one, FailedBaseline))
        run = Run(summary, tuple(records), (), measured, failed)
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
    def twinned(self) -> bool:
        """Whether front members were also scored in ONNX Runtime, as the runtime is another."""
        return any(member.rescore is not None and member.rescore.onnxruntime is not None for member in self.members)

    @property
    def retimed(self) -> bool:
        """Whether latencies of front members were measured again."""
        return self.timed and any(m.rescore is not None and m.rescore.ratios for m in self.members)

    def latest_cost(self, member: FrontMember) -> float:
        """The cost of a member, by its latency as measured again where it was."""
        scores, again = scores_of(member.record), member.rescore
        ratio = again.latency_ratio if again is not None else None
        if not self.timed or ratio is None or scores.latency is None:
            return self.cost(scores)
        return self.cost(replace(scores, latency_ms=scores.latency_ms * ratio / scores.latency.ratio))

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
        return tuple(baseline for baseline in self.baselines if self.objectives.axis.name in baseline.costs)

    def baseline_cost(self, baseline: Baseline) -> float:
        """`cost` of a baseline that is drawn."""
        return baseline.costs[self.objectives.axis.name]

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
    def recommended(self) -> FrontMember | None:
        """The member to start from, if one was chosen."""
        return next((member for member in self.members if member.recommended), None)

    def speedup(self, scores: Scores) -> float | None:
        """How many times faster than the reference; None without latency."""
        if scores.latency is None or not self.timed or scores.latency.ratio <= 0:
            return None
        return 1 / scores.latency.ratio

    def search_difference(self, scores: Scores) -> float | None:
        """Accuracy minus the reference's on the search images, in [-1, 1]."""
        if self.reference is None:
            return None
        return self.goal.value(scores) - self.accuracy(self.reference)

    @staticmethod
    def size_share(scores: Scores) -> float | None:
        """Weight bytes over those of the same weights in fp32."""
        return scores.size.weight_bytes / (4 * scores.size.parameters) if scores.size.parameters else None


def scores_of(record: TrialRecord) -> Scores:
    """The scores of a complete trial."""
    if record.scores is None:
        raise ValueError(f"trial {record.number} has no scores")
    return record.scores


def recommendation(run: Run) -> tuple[str, str]:
    """The recommendation in plain words: a headline and a sentence of detail.

    Returns:
        E.g. ``("Trial 23: 2.9x faster than the reference at −0.4 mAP points [95 % interval −1.2 to +0.4],
        26 % of the fp32 weight size", "Formats: int8 x 70, fp16 x 15. ...")``.
    """
    member = run.recommended
    if member is None:
        if not run.complete:
            return "No trial is complete yet", "The front is empty: resume the run to evaluate more schemes."
        return (
            "No scheme stays within one point of the reference",
            "Choose a member of the front below by the loss that you can accept, or resume with more trials.",
        )
    record, scores, rescore = member.record, scores_of(member.record), member.rescore
    speedup, share = run.speedup(scores), run.size_share(scores)
    if rescore is not None and rescore.latency_ratio is not None and run.timed:
        speedup = 1 / rescore.latency_ratio
    difference = rescore.difference if rescore else run.search_difference(scores)
    head = f"Trial {record.number}:"
    if speedup is not None:
        head += f" {speedup:.1f}x {'faster' if speedup >= 1 else 'the speed'} {'than' if speedup >= 1 else 'of'}"
        head += " the reference"
    head += (
        f" at {points(difference)} {run.goal.brief} points"
        if difference is not None
        else f" at {percent(run.goal.value(scores))} {run.goal.brief}"
    )
    if rescore:
        head += f" [95 % interval {interval_text(*rescore.interval)}]"
    if share is not None:
        head += f", {100 * share:.0f} % of the fp32 weight size"
    return head, _detail(member)


def _detail(member: FrontMember) -> str:
    scores, rescore = scores_of(member.record), member.rescore
    text = f"Formats by layer: {member.record.allocation.summary()}. "
    if rescore is None:
        return text + (
            f"The loss is that on the {scores.accuracy.images} search images, which flatter a scheme "
            "chosen on them; the front was not re-scored on all images."
        )
    text += f"Scored on all {rescore.full.images} evaluation images"
    if rescore.unseen is not None and rescore.unseen_difference is not None:
        text += (
            f"; on the {rescore.unseen.images} of them that the search never saw the difference is "
            f"{points(rescore.unseen_difference)} points"
        )
        if rescore.unseen_interval is not None:
            text += f" [{interval_text(*rescore.unseen_interval)}]"
    return text + "."
