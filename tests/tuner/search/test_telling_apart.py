"""Which members of a front add something that noise can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coco_figures import coco_accuracy

from objectives.objective_set import ObjectiveSet
from objectives.scores import Latency, Scores, Size
from search_spaces.allocation import Allocation
from tuner.search.front import front_of, settled
from tuner.search.records import FrontMember, Rescore, TrialRecord
from tuner.search.telling_apart import Contender, fold, surely_better

TWO = ObjectiveSet.of(["map_50_95", "latency_ms"])
THREE = ObjectiveSet.of([*TWO.names, "weight_mib"])


def scores(value: float, ms: float, mib: float = 1.0, spread: float | None = None) -> Scores:
    ends = (None, None) if spread is None else (ms / 100 - spread, ms / 100 + spread)
    return Scores(
        accuracy=coco_accuracy(value),
        latency=Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0, ratio_low=ends[0], ratio_high=ends[1]),
        size=Size(int(mib * 2**20), 8.0, 2**20),
        latency_ms=ms,
        agreement=1.0,
        artifact="",
    )


REFERENCE = scores(0.5, 100.0, 4.0)
GENERATOR = np.random.default_rng(0)
#: What every scheme's score shares with the reference's and the others' on a resample.
SHARED = GENERATOR.normal(0, 0.01, 1000)


def member(
    number: int, loss: float, ms: float, mib: float = 1.0, *, noise: float | None = 0.001, spread: float = 0.01
) -> FrontMember:
    """A scheme that was scored again, with noise of its own upon what all share; None: of before there were any."""
    record = TrialRecord(
        number, "COMPLETE", "sampler", Allocation.of({f"l{number}": "int8"}), scores(0.5 - loss, ms, mib, spread)
    )
    resampled: tuple[float, ...] = ()
    if noise is not None:
        resampled = tuple(SHARED - loss + GENERATOR.normal(0, noise, 1000))
    ratio = ms / 100
    rescore = Rescore(
        coco_accuracy(0.5 - loss, images=200),
        None,
        -loss,
        (-loss - 0.02, -loss + 0.02),
        ratios=(ratio - spread / 2, ratio, ratio + spread / 2),
        ratio_intervals=((ratio - spread, ratio + spread),) * 3,
        resampled=resampled,
    )
    return FrontMember(record, rescore)


def folded(*members: FrontMember, objectives: ObjectiveSet = TWO, first: int | None = None) -> dict[int, int]:
    contenders = [Contender(each, settled(each, REFERENCE, objectives.maximised)) for each in members]
    return fold(contenders, objectives, next((each for each in contenders if each.trial == first), None))


def test_resamples_tell_apart_what_intervals_to_the_reference_cannot() -> None:
    one, other = member(1, 0.002, 50), member(2, 0.010, 40)
    assert folded(one, other) == {}
    old = [replace(each, rescore=replace(each.rescore, resampled=())) for each in (one, other)]
    assert folded(*old) == {1: 2}, "only their wide intervals are known: trial 1 may be no better, and is slower"


def test_a_slower_one_that_is_not_surely_more_accurate_is_folded() -> None:
    assert folded(member(1, 0.008, 40), member(2, 0.0075, 60)) == {2: 1}


def test_of_those_as_fast_the_most_accurate_is_shown() -> None:
    assert folded(member(1, 0.012, 40.0), member(2, 0.0118, 40.5), member(3, 0.004, 41.0)) == {1: 3, 2: 3}


def test_the_recommended_one_is_never_folded() -> None:
    assert folded(member(1, 0.008, 40), member(2, 0.0075, 60), first=2) == {}


def test_sizes_are_exact_and_noise_hides_the_rest() -> None:
    """Of three that differ in size alone, the smallest; in two objectives the fastest."""
    three = member(1, 0.0041, 40, 3.0), member(2, 0.004, 40.3, 2.0), member(3, 0.0043, 40.1, 1.0)
    assert folded(*three, objectives=THREE) == {1: 3, 2: 3}
    assert folded(*three) == {1: 2, 3: 2}
    assert folded(member(1, 0.0041, 40, 3.0), member(2, 0.004, 60, 2.0), objectives=THREE) == {}


def test_without_noise_nothing_is_folded() -> None:
    records = [member(number, loss, ms).record for number, loss, ms in ((1, 0.01, 40), (2, 0.0099, 41), (3, 0.0, 42))]
    bare = [replace(r, scores=replace(r.scores, latency=None)) for r in records if r.scores]
    assert all(each.folded_under is None for each in front_of(bare, TWO, REFERENCE))


def test_every_member_is_shown_or_folded_under_one_that_is_no_worse() -> None:
    generator = np.random.default_rng(1)
    members = [
        member(n, float(loss), float(ms), float(mib), noise=0.004, spread=0.03)
        for n, (loss, ms, mib) in enumerate(generator.uniform((0, 30, 1), (0.03, 90, 4), (40, 3)))
    ]
    found = folded(*members, objectives=THREE, first=7)
    shown = {each.record.number for each in members} - set(found)
    assert 7 in shown and set(found.values()) <= shown and len(found) > 10
    by_number = {each.record.number: Contender(each, settled(each, REFERENCE, THREE.maximised)) for each in members}
    for trial, over in found.items():
        assert not any(surely_better(by_number[trial], by_number[over], o) for o in THREE.objectives)


def test_latencies_are_told_apart_by_rounds_and_their_intervals() -> None:
    fast, slow = member(1, 0.0, 40.0), member(2, 0.0, 43.0)
    latency = TWO.objectives[1]

    def better(one: FrontMember, other: FrontMember) -> bool:
        return surely_better(*(Contender(e, settled(e, REFERENCE, TWO.maximised)) for e in (one, other)), latency)

    assert better(fast, slow) and not better(slow, fast)
    drifted = replace(slow, rescore=replace(slow.rescore, ratios=(0.40, 0.43, 0.44)))
    assert not better(fast, drifted), "one round was as fast"
    assert drifted.latency_interval == (0.40, 0.44)


@pytest.mark.parametrize("count", [0, 1])
def test_a_front_of_none_or_one_has_nothing_to_fold(count: int) -> None:
    assert folded(*[member(1, 0.0, 40)][:count]) == {}
