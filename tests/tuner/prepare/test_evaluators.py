"""The evaluator's files are made before it starts, whatever the interpreter makes of assertions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.runtimes.replay.evaluator import ReplayEvaluator
from search_spaces.errors import InputError
from tuner.prepare.evaluators import evaluator_settings, open_evaluator
from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

Read = Callable[..., Inputs]
PREPARE = """
import sys
from pathlib import Path
from tuner.prepare.evaluators import evaluator_settings
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

evaluator_settings(read_inputs(read_study(Path(sys.argv[1]))), RunFolder(Path(sys.argv[2])))
"""


def test_ranges_are_measured_without_assertions_too(prepare_study_file: Path, run: RunFolder) -> None:
    subprocess.run([sys.executable, "-O", "-c", PREPARE, prepare_study_file, run.path], check=True)
    assert run.calibration.is_file() and run.recovered.is_file()


def test_settings_follow_the_study(read: Read, run: RunFolder) -> None:
    untimed = evaluator_settings(read("weights.method=rtn", "runtime.batch=2"), run)
    assert untimed.timing is None and untimed.recovered is None and untimed.runtime.batch == 2
    timed = evaluator_settings(read("weights.method=rtn", "objectives=[map_50_95, latency_ms]"), run)
    assert timed.timing is not None and timed.timing.min_iterations == 15


def test_a_replay_has_no_child(study_file: Callable[..., Path], run: RunFolder) -> None:
    inputs = read_inputs(read_study(study_file()))
    with open_evaluator(inputs, run) as evaluator:
        assert isinstance(evaluator, ReplayEvaluator)
    with pytest.raises(InputError, match="'replay' has no images"):
        evaluator_settings(inputs, run)
