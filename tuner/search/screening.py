"""Screening in a study: who may be screened, against whom, and what it saved at which risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from objectives.scores import Scores
from tuner.search.front import front_of
from tuner.search.records import TrialRecord
from tuner.study.config import StudyConfig


def leaders(
    config: StudyConfig, records: Sequence[TrialRecord], reference: Scores, number: int
) -> Mapping[str, Scores]:
    """The front so far, which a trial may be compared with: ``{allocation digest: scores}``; empty: scored in full.

    Only proposals of the sampler are screened. Seeds are few, and the models and the report rest on them.

    Args:
        config: The study.
        records: All trials.
        reference: Scores of the unquantized model.
        number: Of the trial.
    """
    if config.search.screening is None or records[number].origin != "sampler":
        return {}
    front = front_of(records, config.objective_set, reference)
    return {m.record.allocation.digest: m.record.scores for m in front if m.record.scores is not None}


@dataclass(frozen=True)
class ScreeningSummary:
    """What screening did in a study.

    Attributes:
        screened: Schemes that were not scored in full.
        compared: Schemes that had a first look, these included.
        images: Images of a first look, and of a full score.
        confidence: Of the bound.
        saved: Seconds that running the other images and scoring all would have taken: as in the median scheme that
            passed its first look; where none did, inference alone at the pace of the first look.
        spent: Seconds that the comparisons took.
    """

    screened: int
    compared: int
    images: tuple[int, int]
    confidence: float
    saved: float
    spent: float

    def __str__(self) -> str:
        """One sentence for people."""
        few, all_ = self.images
        risk = f"{100 * (1 - self.confidence):.2g} %"
        return (
            f"{self.screened} of {self.compared} schemes screened after {few} of {all_} images, about "
            f"{self.saved:.0f} s saved for {self.spent:.0f} s of comparing; risk: a scheme that belongs in the front "
            f"is screened with probability below {risk} per scheme (nominal; paired bootstrap over these images)"
        )


def summarize(records: Sequence[TrialRecord]) -> ScreeningSummary | None:
    """What screening did; None where no scheme was screened."""
    found = [record.screened for record in records if record.screened is not None]
    if not found:
        return None
    passed = [r.scores.seconds for r in records if r.scores is not None and "compare" in r.scores.seconds]
    rest = [seconds["evaluate"] for seconds in passed]
    spent = sum(seconds["compare"] for seconds in [*passed, *(screened.seconds for screened in found)])
    look = found[-1].look
    return ScreeningSummary(
        len(found),
        len(found) + len(passed),
        (look.images, look.total),
        min(screened.look.confidence for screened in found),
        len(found) * median(rest) if rest else sum(screened.saved for screened in found),
        spent,
    )
