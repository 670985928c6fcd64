from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.scores import Accuracy, Latency, Scores, Size
from search_spaces.allocation import Allocation
from tuner.config import ConstraintsSection
from tuner.front import front_of, hypervolume, hypervolume_history, pareto, write_front
from tuner.records import Rescore, TrialRecord
from tuner.run_folder import RunFolder

TWO = ("map_50_95", "latency_ms")
THREE = (*TWO, "weight_mib")


def scores(score: float, ms: float, size: int = 2**20, broken: bool = False) -> Scores:
    latency = Latency(ms, ms, ms, ms, 0.01, 20, ms / 100, 100.0)
    return Scores(Accuracy(score, *[score] * 5, 10), latency, Size(size, 8.0, size), ms, 1.0, "", broken)


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
    accuracy = Accuracy(0.48, *[0.48] * 5, 20)
    rescores = {RECORDS[2].allocation.digest: Rescore(accuracy, None, -0.02, (-0.03, -0.01))}
    members = front_of(RECORDS, TWO, REFERENCE, rescores=rescores)
    assert [member.record.number for member in members if member.recommended] == [1]


def test_constraints_and_third_objective() -> None:
    bounds = ConstraintsSection(min_map=0.45, max_latency_ms=70.0)
    assert [m.record.number for m in front_of(RECORDS, TWO, REFERENCE, bounds=bounds)] == [2, 1]
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
    write_front(run, "demo", front_of(RECORDS, TWO, REFERENCE), REFERENCE)
    data = json.loads((tmp_path / "front.json").read_text())["front"]
    assert [entry["trial"] for entry in data] == [3, 2, 1, 0]
    wanted = {"trial", "scheme", "map_50_95", "latency_ms", "latency_ratio", "weight_bytes", "intervals"}
    assert wanted | {"average_weight_bits"} <= set(data[0])
    assert len((tmp_path / "front.csv").read_text().splitlines()) == 5
    assert "**recommended**" in (tmp_path / "front.md").read_text()
