"""Which scheme is recommended, and with what words."""

from __future__ import annotations

import pytest
from coco_figures import coco_accuracy

from objectives.objective_set import ObjectiveSet
from objectives.scores import Latency, Scores, Size
from search_spaces.allocation import Allocation
from tuner.search.front import front_of, recommendation
from tuner.search.recommendation import Recommendation, Verdict
from tuner.search.records import Rescore, TrialRecord

TWO = ObjectiveSet.of(["map_50_95", "latency_ms"])


def scores(value: float, ms: float, size: int = 2**20) -> Scores:
    latency = Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0, ratio_low=ms / 100 - 0.01, ratio_high=ms / 100 + 0.01)
    return Scores(
        accuracy=coco_accuracy(value),
        latency=latency,
        size=Size(size, 8.0, 2**20),
        latency_ms=ms,
        agreement=1.0,
        artifact="",
    )


REFERENCE = scores(0.5, 100.0, 2**22)
Scheme = tuple[float, float, float | None]  # points lost, milliseconds, half of the interval in points


def answer(*schemes: Scheme, objectives: ObjectiveSet = TWO) -> tuple[Recommendation | None, list[int], list[int]]:
    """The answer of a front of the unquantized model, trial 0, and schemes from trial 1 on; who is marked."""
    records = [TrialRecord(0, "COMPLETE", "reference", Allocation.of({"l": "fp16"}), REFERENCE)]
    rescores = {}
    for number, (lost, ms, half) in enumerate(schemes, 1):
        choice = Allocation.of({"l": "int8", f"m{number}": "int8"})
        records.append(TrialRecord(number, "COMPLETE", "sampler", choice, scores(0.5 - lost / 100, ms)))
        if half is not None:
            bounds = ((-lost - half) / 100, (-lost + half) / 100)
            full = coco_accuracy(0.5 - lost / 100, images=200)
            rescores[choice.digest] = Rescore(full, None, -lost / 100, bounds, ratios=(ms / 100,))
    members = front_of(records, objectives, REFERENCE, rescores=rescores)
    marked = [m.record.number for m in members if m.recommended], [m.record.number for m in members if m.nearest]
    return recommendation(members, REFERENCE, objectives), *marked


def test_the_fastest_that_is_surely_within_the_budget() -> None:
    found, recommended, nearest = answer((0.8, 30, 0.5), (0.4, 50, 0.5), (0.1, 70, 0.2))
    assert found is not None and (found.trial, found.verdict) == (2, Verdict.SURE)
    assert (recommended, nearest) == ([2], [])
    text = found.sentence(TWO)
    assert "Trial 2 is the fastest scheme that is surely within 1.0 mAP points" in text
    assert "−0.4 points (95 % interval −0.9 to +0.1)" in text


def test_a_faster_one_whose_interval_crosses_the_budget_is_not() -> None:
    """Trial 1 loses 0.9 points by its figure, as the old rule asked, and may lose 1.2."""
    assert answer((0.9, 30, 0.3), (0.5, 60, 0.5))[1] == [2], "its upper end is the budget itself"
    assert answer((0.9, 30, 0.1), (0.5, 60, 0.5))[1] == [1]


def test_among_those_as_fast_within_noise_the_more_accurate() -> None:
    assert answer((0.5, 50.0, 0.2), (0.1, 50.8, 0.2), (0.0, 60.0, 0.2))[1] == [2]


def test_none_surely_within_names_the_nearest_and_recommends_none() -> None:
    found, recommended, nearest = answer((0.9, 30, 0.3), (3.0, 20, 0.3))
    assert found is not None and found.verdict is Verdict.NEAREST and (recommended, nearest) == ([], [1])
    assert found.sentence(TWO) == (
        "No scheme is surely within 1.0 mAP points of the unquantized model. The nearest is trial 1: −0.9 points "
        "(95 % interval −1.2 to −0.6), and its interval crosses the budget of −1.0."
    )
    assert found.to_json()["interval_crosses_budget"] is True
    far = answer((3.0, 20, 0.3))[0]
    assert far is not None and "crosses" not in far.sentence(TWO) and not far.to_json()["interval_crosses_budget"]


def test_before_the_front_is_scored_again_the_figures_of_the_search_must_do() -> None:
    found, recommended, _ = answer((0.8, 30, None), (0.4, 50, None))
    assert found is not None and found.verdict is Verdict.ESTIMATED and recommended == [1]
    assert "not scored on all images" in found.sentence(TWO)
    beyond = answer((1.8, 30, None))[0]
    assert beyond is not None and beyond.verdict is Verdict.NEAREST


def test_the_unquantized_model_is_no_answer() -> None:
    assert answer() == (None, [], [])
    found = answer((2.0, 30, 0.3))[0]
    assert found is not None and found.trial == 1, "trial 0 is on the front and loses nothing"


@pytest.mark.parametrize(("drop", "trial"), [(0.5, 3), (0.95, 2), (1.0, 2), (1.5, 1)])
def test_the_budget_is_that_of_the_objectives(drop: float, trial: int) -> None:
    schemes = (0.8, 30, 0.5), (0.4, 50, 0.5), (0.1, 70, 0.2)
    bounded = ObjectiveSet.of(TWO.names, {"max_drop": drop})
    found, recommended, _ = answer(*schemes, objectives=bounded)
    assert recommended == [trial]
    assert found is not None and found.trial == trial and f"within {drop} mAP points" in found.sentence(TWO)


def test_without_a_clock_it_is_the_smallest() -> None:
    sized = ObjectiveSet.of(["map_50_95", "weight_mib"])
    found = answer((0.4, 50, 0.5), objectives=sized)[0]
    assert found is not None and "is the smallest scheme" in found.sentence(sized)
    assert "tell apart" not in found.sentence(sized) and found.to_json()["drop"] == pytest.approx(0.004)
