"""What is kept of repeated timing."""

import json
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tuner.results.retime import Round, read_rounds
from tuner.study.run_folder import RunFolder


def test_rounds_of_older_runs_are_read_as_steady_ones(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_rounds(run) == {}
    noisy = {"ratio": 0.6, "low": 0.5, "high": 0.7, "noisy": True}
    run.retimed.parent.mkdir()
    run.retimed.write_text(json.dumps({"old": [0.5, 0.51], "new": [noisy], "none": []}))
    assert read_rounds(run) == {"old": (Round(0.5), Round(0.51)), "new": (Round(0.6, 0.5, 0.7, True),), "none": ()}


@pytest.mark.parametrize("bad", [0.0, -1.0, "x", {"ratio": 0}, {"low": 1.0}, {"ratio": 0.5, "high": -1}])
def test_rounds_that_cannot_be_are_refused(tmp_path: Path, bad: object) -> None:
    run = RunFolder(tmp_path)
    run.retimed.parent.mkdir()
    run.retimed.write_text(json.dumps({"old": [bad]}))
    with pytest.raises(InputError, match=r"retimed.json: not one of ours"):
        read_rounds(run)
