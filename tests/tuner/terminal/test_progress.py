"""A step that takes long is heard of, also where stderr is no terminal."""

from __future__ import annotations

import re
import time

import pytest

from tuner.terminal import progress
from tuner.terminal.progress import bar, duration, every


def waited_for(capfd: pytest.CaptureFixture[str], pattern: str) -> str:
    """All that was said until a line matched."""
    said, end = "", time.monotonic() + 60
    while not re.search(pattern, said):
        assert time.monotonic() < end, said
        time.sleep(0.01)
        said += capfd.readouterr().err
    return said


def test_a_long_step_says_how_far_it_is(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    with bar("calibration", 40) as done:
        assert waited_for(capfd, "so far").startswith("calibration: 40\n")
        done(10)
        said = waited_for(capfd, "left")
    assert re.search(r"^calibration: 10 of 40, about \d+ s left$", said, re.MULTILINE)
    capfd.readouterr()
    time.sleep(0.2)
    assert capfd.readouterr().err == ""  # it is over


def test_a_step_that_cannot_tell_says_how_long_it_took(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    with bar("building", 1):
        assert re.match(r"building\nbuilding: \d+ s so far\n", waited_for(capfd, "so far"))
    with bar("reading", 0):
        assert re.match(r"reading: \d+ s so far\n", waited_for(capfd, "so far"))


def test_a_quick_step_is_one_line_or_none(capfd: pytest.CaptureFixture[str]) -> None:
    with bar("calibration", 40) as done:
        done(40)
    with bar("reading", 0):
        pass
    assert capfd.readouterr().err == "calibration: 40\n"


def test_what_fails_within_a_step_is_heard() -> None:
    with pytest.raises(ValueError, match="broken"), every(0.01, lambda: None):
        raise ValueError("broken")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (12.2, "12 s"), (200, "3 min 20 s"), (3905, "1 h 05 min")]
)
def test_durations_are_read_as_people_say_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
