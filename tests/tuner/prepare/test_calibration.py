"""Ranges: measured once, by the method that disturbs least where the study leaves it open."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from objectives.quantization.histogram import METHODS
from search_spaces.errors import InputError
from tuner.prepare.calibration import ensure_calibration, read_calibration
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def test_ranges_are_measured_once(read: Read, run: RunFolder) -> None:
    titles: list[str] = []
    first = ensure_calibration(read(), run, _noting(titles))
    assert titles == ["preprocessing calibration images", "calibration"]
    kept = run.calibration.stat().st_mtime_ns
    assert ensure_calibration(read(), run, _noting(titles)).to_json() == first.to_json()
    assert len(titles) == 2 and run.calibration.stat().st_mtime_ns == kept
    assert read_calibration(run).method == "max"


def test_auto_keeps_the_method_that_disturbs_least(read: Read, run: RunFolder) -> None:
    table = ensure_calibration(read("calibration.method=auto"), run)
    (event,) = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert set(event["divergence"]) == set(METHODS)
    assert table.method == event["chosen"] == min(event["divergence"], key=event["divergence"].__getitem__)


def test_auto_tries_nothing_where_no_activation_is_quantized(read: Read, run: RunFolder) -> None:
    ensure_calibration(read("calibration.method=auto", "space.formats=[fp16, w8a16]"), run)
    assert not run.log_file.exists()


def test_a_run_without_ranges_names_the_remedy(run: RunFolder) -> None:
    with pytest.raises(InputError, match="not calibrated yet; `tuner resume"):
        read_calibration(run)


def _noting(titles: list[str]):
    from tuner.terminal.progress import silent

    def step(title: str, total: int):
        titles.append(title)
        return silent(title, total)

    return step
