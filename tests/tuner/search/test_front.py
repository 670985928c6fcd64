from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_figures import coco_accuracy
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.objective import milliseconds
from objectives.objective_set import ObjectiveSet
from objectives.scores import Latency, Scores, Size
from search_spaces.allocation import Allocation
from tuner.results.front_files import row, write_front
from tuner.results.selection import Budget
from tuner.search.front import front_of, hypervolume, hypervolume_history, knee, pareto, recommendation
from tuner.search.records import Rescore, TrialRecord
from tuner.study.run_folder import RunFolder

TWO = ObjectiveSet.of(["map_50_95", "latency_ms"])
THREE = ObjectiveSet.of([*TWO.names, "weight_mib"])


def scores(score: float, ms: float, size: int = 2**20, broken: bool = False) -> Scores:
    latency = Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0)
    return Scores(
        accuracy=coco_accuracy(score),
        latency=latency,
        size=Size(size, 8.0, size),
        latency_ms=ms,
        agreement=1.0,
        artifact="",
        broken=broken,
    )


def record(number: int, *args: object, **kwargs: object) -> TrialRecord:
    name = "reference" if number == 0 else "sampler"
    return TrialRecord(number, "COMPLETE", name, Allocation.of({f"l{number}": "int8"}), scores(*args, **kwargs))


REFERENCE = scores(0.5, 100.0, 4 * 2**20)
RECORDS = [
    record(0, 0.500, 100.0, 4 * 2**20),
    record(1, 0.495, 60.0),
    record(2, 0.493, 50.0),
    record(3, 0.400, 40.0),
    record(4, 0.390, 45.0),
    record(5, 0.010, 10.0, broken=True),
]


def test_front_is_sorted_by_latency_and_recommends_the_fastest_within_a_point() -> None:
    members = front_of(RECORDS, TWO, REFERENCE)
    assert [member.record.number for member in members] == [3, 2, 1, 0]
    assert [member.record.number for member in members if member.recommended] == [2]


def test_rescoring_decides_the_recommendation() -> None:
    accuracy = coco_accuracy(0.48, images=20)
    rescores = {RECORDS[2].allocation.digest: Rescore(accuracy, None, -0.02, (-0.03, -0.01))}
    members = front_of(RECORDS, TWO, REFERENCE, rescores=rescores)
    assert [member.record.number for member in members if member.recommended] == [1]


def again(difference: float, *ratios: float, width: float = 0.003) -> Rescore:
    accuracy = coco_accuracy(0.48 + difference, *[0.48] * 5, images=20)
    return Rescore(accuracy, None, difference, (difference - width, difference + width), ratios=ratios)


def test_figures_measured_again_choose_the_front() -> None:
    """Trial 2 was lucky, trial 4 unlucky: dominated in the search, it was measured again for the models' sake."""
    found = {
        RECORDS[2].allocation.digest: again(-0.12, 0.5),
        RECORDS[4].allocation.digest: again(-0.006, 0.46, 0.44, 0.5),
    }
    found |= {RECORDS[1].allocation.digest: again(-0.005, 0.6), RECORDS[3].allocation.digest: again(-0.1, 0.4)}
    members = front_of(RECORDS, TWO, REFERENCE, rescores=found)
    assert [member.record.number for member in members] == [3, 4, 1, 0]
    assert [member.record.number for member in members if member.recommended] == [4]
    shown = row(members[1], REFERENCE, TWO)
    assert (shown["map_50_95"], shown["latency_ms"]) == (0.39, 45.0), "the search's figures stay"
    assert shown["rescored"]["latency_ms"] == pytest.approx(46.0) and shown["rescored"]["rounds"] == 3
    assert (shown["rescored"]["latency_ratio_low"], shown["rescored"]["latency_ratio_high"]) == (0.44, 0.5)
    assert Budget(max_latency_ms=45.5).within([shown]) == []


def test_luck_alone_takes_no_place_of_one_measured_again() -> None:
    """Trial 9 is dominated by what the search measured of trial 2, and was not measured again."""
    records = [*RECORDS, record(9, 0.4925, 55.0)]
    assert 9 not in [m.record.number for m in front_of(records, TWO, REFERENCE)]
    found = {RECORDS[2].allocation.digest: again(-0.02)}
    assert 9 not in [m.record.number for m in front_of(records, TWO, REFERENCE, rescores=found)]


def test_constraints_hold_for_the_figures_measured_again() -> None:
    found = {RECORDS[2].allocation.digest: again(-0.06, 0.5), RECORDS[1].allocation.digest: again(-0.001, 0.75)}
    for bound, value in (("min_map", 0.45), ("max_latency_ms", 70.0)):
        bounded = ObjectiveSet.of(TWO.names, {bound: value})
        numbers = [m.record.number for m in front_of(RECORDS, bounded, REFERENCE, rescores=found)]
        assert (2 in numbers, 1 in numbers) == (bound != "min_map", bound != "max_latency_ms")


def test_where_nothing_keeps_the_drop_the_nearest_is_named_beside_the_unquantized() -> None:
    records = [replace(RECORDS[0], allocation=Allocation.of({"l0": "fp16"})), *RECORDS[1:]]
    bounded = ObjectiveSet.of(TWO.names, {"max_drop": 0.2})
    members = front_of(records, bounded, REFERENCE)
    assert [(m.record.number, m.nearest, m.recommended) for m in members] == [(1, True, False), (0, False, False)]
    answer = recommendation(members, REFERENCE, bounded)
    assert answer is not None and answer.trial == 1 and "The nearest is trial 1" in answer.sentence(bounded)
    alone = front_of(records[1:], bounded, REFERENCE)
    assert [(m.record.number, m.nearest) for m in alone] == [(1, True)], "the unquantized scheme need not be there"
    tight = ObjectiveSet.of(TWO.names, {"max_drop": 0.2, "max_latency_ms": 55.0})
    assert [m.record.number for m in front_of(records, tight, REFERENCE) if m.nearest] == [2], "other bounds hold"
    enough = ObjectiveSet.of(TWO.names, {"max_drop": 0.6})
    assert not any(m.nearest for m in front_of(records, enough, REFERENCE))


def test_the_knee_is_farthest_below_the_line_between_the_ends() -> None:
    # From (0, 1) to (1, 0): (.5, .4) lies .1 below it, (.2, .3) .5, and (.8, .3) above.
    assert knee(np.array([[0.0, 1.0], [0.2, 0.3], [0.5, 0.4], [1.0, 0.0]])) == 1
    assert knee(np.array([[0.0, 100.0], [0.002, 30.0], [0.005, 40.0], [0.01, 0.0]])) == 1, "whatever the units"
    assert knee(np.array([[0.0, 1.0], [0.8, 0.3], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0]])) is None
    assert [m.record.number for m in front_of(RECORDS, TWO, REFERENCE) if m.knee] == [2]


def test_the_best_for_a_budget() -> None:
    members = front_of(RECORDS, TWO, REFERENCE)

    def best(budget: Budget) -> int | None:
        return budget.best(members, REFERENCE, TWO)

    assert best(Budget(max_drop=0.6)) == 1, "the fastest that keeps it"
    assert best(Budget(max_latency_ms=55.0)) == 2, "the most accurate that keeps it"
    assert best(Budget(max_weight_mib=1.0)) == 1
    assert best(Budget(max_latency_ms=5.0)) is None and best(Budget()) is None
    assert best(Budget(max_drop=0.6, max_latency_ms=55.0)) is None
    scored = {RECORDS[1].allocation.digest: again(-0.005, 0.6, width=0.002)}
    members = front_of(RECORDS, TWO, REFERENCE, rescores=scored)
    assert best(Budget(max_drop=0.6)) == 0, "trial 1 may lose 0.7 points"
    assert best(Budget(max_drop=0.7)) == 1 and best(Budget(max_drop=0.6, max_weight_mib=1.0)) is None


def test_a_refined_scheme_stands_beside_its_trial(tmp_path: Path) -> None:
    """Of the same formats, and another scheme all the same: it has numbers, and figures, of its own."""
    trial = RECORDS[2]
    own = replace(trial.allocation, numbers="0123456789abcdef")
    refined = TrialRecord(~2, "COMPLETE", "refined from trial 2", own, scores(0.499, 50.5))
    members = front_of([*RECORDS, refined], TWO, REFERENCE)
    assert [member.record.name for member in members] == ["3", "2", "2-refined", "0"]
    rows = [row(member, REFERENCE, TWO) for member in members]
    assert [(entry["trial"], entry["refined"]) for entry in rows] == [(3, False), (2, False), (~2, True), (0, False)]
    assert refined.trial == 2 and rows[2]["name"] == "2-refined"
    assert rows[1]["scheme"] == rows[2]["scheme"] and rows[1]["digest"] != rows[2]["digest"]
    assert Budget(max_latency_ms=55.0).best(members, REFERENCE, TWO) == ~2
    assert Budget(max_latency_ms=50.0).best(members, REFERENCE, TWO) == 2
    run = RunFolder(tmp_path)
    write_front(run, "study", members, REFERENCE, TWO)
    lines = (tmp_path / "front.md").read_text().splitlines()
    assert next(line for line in lines if "**refined from trial 2**" in line).startswith("| 2-refined |")
    with (tmp_path / "front.csv").open() as file:
        assert [line["refined"] for line in csv.DictReader(file)] == ["False", "False", "True", "False"]


def test_constraints_and_third_objective() -> None:
    bounded = ObjectiveSet.of(TWO.names, {"min_map": 0.45, "max_latency_ms": 70.0})
    assert [m.record.number for m in front_of(RECORDS, bounded, REFERENCE)] == [2, 1]
    small = [*RECORDS, record(6, 0.495, 90.0, 2**18)]
    assert 6 not in [m.record.number for m in front_of(small, TWO, REFERENCE)]
    assert 6 in [m.record.number for m in front_of(small, THREE, REFERENCE)]


def test_an_equal_scheme_counts_once_and_nothing_gives_nothing() -> None:
    twice = [RECORDS[1], replace(RECORDS[1], number=9)]
    assert [m.record.number for m in front_of(twice, TWO, REFERENCE)] == [1]
    assert front_of([], TWO, REFERENCE) == [] and hypervolume([], TWO, REFERENCE) == 0.0


def test_hypervolume_by_hand() -> None:
    # Beyond half of the reference's mAP of 0.5: 0.25 times (1.1 - 1.0); a second adds 0.15 x (1.0 - 0.5) below it.
    assert hypervolume([RECORDS[0]], TWO, REFERENCE) == pytest.approx(0.025)
    pair = [RECORDS[0], record(1, 0.4, 50.0)]
    assert hypervolume(pair, TWO, REFERENCE) == pytest.approx(0.025 + 0.15 * 0.5)
    assert hypervolume_history(pair, TWO, REFERENCE) == pytest.approx((0.025, 0.1))
    assert hypervolume([RECORDS[0]], THREE, REFERENCE) == pytest.approx(0.25 * 0.1 * 0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_agrees_with_the_definition(rows: list[tuple[int, int, int]]) -> None:
    points = np.array(rows, dtype=np.float64)
    expected = [not any(all(b <= a for a, b in zip(p, q, strict=True)) and q != p for q in rows) for p in rows]
    assert pareto(points).tolist() == expected


def test_files_hold_every_member(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_front(run, "demo", front_of(RECORDS, TWO, REFERENCE), REFERENCE, TWO)
    data = json.loads((tmp_path / "front.json").read_text())["front"]
    assert [entry["trial"] for entry in data] == [3, 2, 1, 0]
    wanted = {"trial", "scheme", "map_50_95", "latency_ms", "latency_ratio", "weight_bytes", "intervals"}
    assert wanted | {"average_weight_bits"} <= set(data[0])
    assert len((tmp_path / "front.csv").read_text().splitlines()) == 5
    text = (tmp_path / "front.md").read_text()
    assert "**recommended**" in text
    said = json.loads((tmp_path / "front.json").read_text())["recommendation"]
    answer = recommendation(front_of(RECORDS, TWO, REFERENCE), REFERENCE, TWO)
    assert answer is not None and said == answer.to_json() and answer.sentence(TWO) in text


def test_files_show_what_noise_can_tell_and_keep_all(tmp_path: Path) -> None:
    found = {RECORDS[1].allocation.digest: again(-0.005, 0.6), RECORDS[2].allocation.digest: again(-0.007, 0.5)}
    write_front(RunFolder(tmp_path), "demo", front_of(RECORDS, TWO, REFERENCE, rescores=found), REFERENCE, TWO)
    data = {entry["trial"]: entry for entry in json.loads((tmp_path / "front.json").read_text())["front"]}
    assert {trial: entry["folded_under"] for trial, entry in data.items()} == {3: None, 2: None, 1: 2, 0: None}
    assert data[2]["recommended"] and not data[2]["nearest"]
    text = (tmp_path / "front.md").read_text()
    assert "under 2: 1. front.json has them all" in text
    assert [line.split(" |")[0] for line in text.splitlines() if line.startswith("| ")][2:] == ["| 3", "| 2", "| 0"]
    lines = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert [line["folded_under"] for line in lines] == ["", "", "2", ""]


def noisy(scores: Scores, low: float, high: float) -> Scores:
    assert scores.latency is not None
    return replace(scores, latency=replace(scores.latency, noisy=True, ratio_low=low, ratio_high=high))


def test_noise_is_marked_in_every_file(tmp_path: Path) -> None:
    records = [replace(RECORDS[1], scores=noisy(RECORDS[1].scores, 0.55, 0.66)), RECORDS[2]]
    write_front(RunFolder(tmp_path), "demo", front_of(records, TWO, REFERENCE), noisy(REFERENCE, 0.9, 1.1), TWO)
    steady, marked = json.loads((tmp_path / "front.json").read_text())["front"]
    assert marked["noisy"] and marked["latency_ratio_interval"] == [0.55, 0.66]
    assert not steady["noisy"] and steady["latency_ratio_interval"] is None, "as of a run before there were any"
    lines = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert [(line["noisy"], line["latency_ratio_high"]) for line in lines] == [("False", ""), ("True", "0.66")]
    page = (tmp_path / "front.md").read_text()
    assert page.count("**noisy**") == 1 and "100.0 ms (noisy, 90.0 to 110.0 ms)" in page


def test_a_noisy_round_marks_a_member() -> None:
    rescore = replace(again(-0.005, 0.6, 0.7, 0.61), noisy_rounds=1)
    (member,) = front_of([RECORDS[1]], TWO, REFERENCE, rescores={RECORDS[1].allocation.digest: rescore})
    entry = row(member, REFERENCE, TWO)
    assert entry["noisy"] and entry["rescored"]["noisy_rounds"] == 1


@pytest.mark.parametrize(("value", "text"), [(0.37947, "0.379"), (0.9996, "1.00"), (9.996, "10.0"), (379.47, "379.5")])
def test_a_latency_has_three_digits_on_any_device(value: float, text: str) -> None:
    assert milliseconds(value) == text
