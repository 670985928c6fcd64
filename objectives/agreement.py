"""Agreement with the unquantized model's detections as the accuracy of a study: for users without labels."""

from __future__ import annotations

from objectives.objective import Objective
from objectives.scores import Scores, Screened


def _agreement(result: Scores | Screened) -> float:
    if isinstance(result, Screened):
        return result.look.expected
    return result.metrics.get("agreement", result.agreement)  # all scores have it, whatever was asked for


AGREEMENT = Objective(
    name="agreement",
    label="agreement",
    unit="",
    direction="maximize",
    value=_agreement,
    worst=0.5,  # who loses half of what the unquantized model finds adds nothing
    prior="sensitivity",
    text="{:.4f}".format,
    bound="min_agreement",
    metric="agreement",
)
