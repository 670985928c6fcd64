"""Objectives and the set of a study: coordinates, bounds, and what a package may add."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from coco_figures import coco_accuracy

from objectives.objective import LATENCY_MS, MAP_50_95, OBJECTIVES, WEIGHT_MIB, Objective
from objectives.objective_set import ObjectiveSet
from objectives.scores import Accuracy, FirstLook, Latency, Scores, Screened, Size
from search_spaces.errors import InputError

NAMES = ("map_50_95", "latency_ms", "weight_mib")


def scores(score: float, ms: float, mib: float, broken: bool = False) -> Scores:
    latency = Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0)
    size = Size(int(mib * 2**20), 8.0, 100)
    return Scores(
        accuracy=coco_accuracy(score),
        latency=latency,
        size=size,
        latency_ms=ms,
        agreement=1.0,
        artifact="",
        broken=broken,
    )


REFERENCE = scores(0.5, 100.0, 4.0)


def test_coordinates_are_minimised_and_costs_are_shares_of_the_references() -> None:
    found = ObjectiveSet.of(["latency_ms", "map_50_95", "weight_mib"])
    assert found.values(scores(0.4, 50.0, 1.0)) == [50.0, 0.4, 1.0]
    assert found.losses(scores(0.4, 50.0, 1.0), REFERENCE) == [0.5, -0.4, 0.25]
    assert found.reference_point == (1.1, 0.5, 1.1)
    assert found.worst_point(REFERENCE).tolist() == [1.1, -0.25, 1.1]
    assert found.accuracy == 1 and found.costs == (LATENCY_MS, WEIGHT_MIB)


def test_bounds_hold_for_objectives_and_for_what_is_none() -> None:
    constraints = {"min_map": 0.45, "max_latency_ms": None, "max_weight_mib": 2.0}
    found = ObjectiveSet.of(NAMES[:2], constraints)
    assert found.violations(scores(0.4, 50.0, 1.0)) == {
        "broken": 0.0,
        "min_map": pytest.approx(0.05),
        "max_weight_mib": -1.0,
    }
    assert found.feasible(scores(0.45, 50.0, 2.0)) and not found.feasible(scores(0.45, 50.0, 2.5))
    assert not found.feasible(scores(0.45, 50.0, 2.0, broken=True))
    assert found.bounded == (WEIGHT_MIB,) and found.sized and found.timed
    assert ObjectiveSet.of(NAMES, constraints).bounded == ()
    untimed = ObjectiveSet.of(["map_50_95", "weight_mib"], {"max_latency_ms": 1.0})
    assert untimed.bounded == () and not untimed.timed, "what is not timed is known of no trial"
    assert not ObjectiveSet.of(NAMES[:2]).sized


def test_figures_draw_what_is_timed_and_colour_by_the_other_cost() -> None:
    found = ObjectiveSet.of(["map_50_95", "weight_mib", "latency_ms"])
    assert (found.axis, found.shade, found.further) == (LATENCY_MS, WEIGHT_MIB, ())
    assert ObjectiveSet.of(["map_50_95", "weight_mib"]).shade is None
    assert LATENCY_MS.title == "latency, ms (paired with the reference)" and MAP_50_95.title == "mAP50-95"
    other = replace(WEIGHT_MIB, name="other")
    assert ObjectiveSet((MAP_50_95, LATENCY_MS, other)).further == (other,)


def test_a_screened_scheme_is_worth_what_is_expected_of_it() -> None:
    latency = Latency(1.0, 1.0, 1.0, 1.0, 0.01, 20, 0.5, 2.0)
    look, size = FirstLook("x", 16, 32, -0.1, -0.05, 0.99, 0.35), Size(2**19, 8.0, 2**19)
    found = Screened(look=look, latency=latency, size=size, latency_ms=7.0, agreement=0.9, artifact="")
    assert [OBJECTIVES.get(name).value(found) for name in NAMES] == [0.35, 7.0, 0.5]
    quick = [LATENCY_MS.quick, WEIGHT_MIB.quick]
    assert [read(found.latency, found.size) for read in quick if read is not None] == [0.5, 2**19]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["latency_ms", "weight_mib"], "one accuracy, such as map_50_95"),
        (["map_50_95"], "at least one cost"),
        (["map_50_95", "map_50_95"], "named twice"),
        (["map_50_95", "latency"], "did you mean 'latency_ms'"),
    ],
)
def test_a_study_needs_one_accuracy_and_a_cost(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ObjectiveSet.of(names)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_keeps_its_name_and_reaches_another_process(name: str) -> None:
    objective: Objective = pickle.loads(pickle.dumps(OBJECTIVES.get(name)))
    assert objective.name == name
    figures = {**REFERENCE.accuracy.metrics, "map_50_95_mask": 0.4, "map_50_95_keypoints": 0.3}
    reference = replace(REFERENCE, accuracy=Accuracy(metrics=figures, images=8))
    assert objective.value(reference) == OBJECTIVES.get(name).value(reference)
    assert objective.value(reference) == figures.get(name, objective.value(reference))
    assert (objective.prior == "sensitivity") == objective.accuracy
