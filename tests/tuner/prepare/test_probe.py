"""Probing is for runtimes with engines alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from search_spaces.errors import InputError
from tuner.prepare.evaluators import open_evaluator
from tuner.prepare.probe import ensure_probe, read_probe, unsupported_pairs
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder
from tuner.terminal.progress import silent


def test_without_engines_nothing_is_probed_or_left_out(read: Callable[..., Inputs], run: RunFolder) -> None:
    with open_evaluator(read(), run) as evaluator:
        ensure_probe(read(), run, silent, evaluator)
    assert not run.probe.exists() and not unsupported_pairs(read(), run).pairs


def test_a_run_that_was_not_probed_names_the_remedy(run: RunFolder) -> None:
    with pytest.raises(InputError, match="not probed yet; `tuner resume"):
        read_probe(run)
