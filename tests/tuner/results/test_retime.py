"""What is kept of repeated timing."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from tuner.results.retime import ROUNDS, Round, read_rounds, rounds_of
from tuner.study.run_folder import RunFolder


def test_rounds_of_older_runs_are_read_as_steady_ones(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_rounds(run) == {}
    noisy = {"ratio": 0.6, "low": 0.5, "high": 0.7, "noisy": True}
    run.retimed.parent.mkdir()
    run.retimed.write_text(json.dumps({"old": [0.5, 0.51], "new": [noisy], "none": []}))
    assert read_rounds(run) == {"old": (Round(0.5), Round(0.51)), "new": (Round(0.6, 0.5, 0.7, True),), "none": ()}


def timed(matters: Callable[[Mapping[str, Sequence[Round]]], set[int]], failing: int | None = None) -> list[list[int]]:
    """Which of five schemes were timed in each round."""
    schemes = [Allocation.of({f"l{number}": "int8"}) for number in range(5)]
    asked: list[list[int]] = [[]]

    def time(scheme: Allocation) -> Round | None:
        asked[-1].append(schemes.index(scheme))
        return None if schemes.index(scheme) == failing else Round(0.5)

    def worthwhile(found: Mapping[str, Sequence[Round]]) -> set[str]:
        asked.append([])
        return {schemes[number].digest for number in matters(found)}

    found = rounds_of(schemes, time, worthwhile)
    counts = [sum(turn.count(number) for turn in asked) for number in range(5)]
    assert [len(found[scheme.digest]) for scheme in schemes] == [
        0 if number == failing else count for number, count in enumerate(counts)
    ]
    return [turn for turn in asked if turn]


def test_all_are_timed_once_and_those_that_matter_in_every_round() -> None:
    assert timed(lambda found: {1, 3}) == [[0, 1, 2, 3, 4], [3, 1], [1, 3]]
    assert timed(lambda found: set(range(5))) == [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]]
    assert timed(lambda found: set()) == [[0, 1, 2, 3, 4]]


def test_one_that_comes_forward_late_gets_all_its_rounds() -> None:
    def matters(found: Mapping[str, Sequence[Round]]) -> set[int]:
        return {4} if max(map(len, found.values())) == ROUNDS else {0}

    assert timed(matters) == [[0, 1, 2, 3, 4], [0], [0], [4], [4]]


def test_one_that_cannot_be_timed_is_not_tried_for_ever() -> None:
    assert timed(lambda found: {2}, failing=2) == [[0, 1, 2, 3, 4], [2], [2]]


@pytest.mark.parametrize("bad", [0.0, -1.0, "x", {"ratio": 0}, {"low": 1.0}, {"ratio": 0.5, "high": -1}])
def test_rounds_that_cannot_be_are_refused(tmp_path: Path, bad: object) -> None:
    run = RunFolder(tmp_path)
    run.retimed.parent.mkdir()
    run.retimed.write_text(json.dumps({"old": [bad]}))
    with pytest.raises(InputError, match=r"retimed.json: not one of ours"):
        read_rounds(run)
