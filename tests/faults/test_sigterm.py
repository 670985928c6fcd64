"""A few SIGTERMs at random moments; `python tests/faults/sigterm.py` sends as many as one likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sigterm import END_SECONDS, sigterms


@pytest.mark.slow
def test_sigterm_ends_a_study_at_once_and_loses_nothing(tmp_path: Path) -> None:
    found = sigterms(tmp_path / "signals", 3, trials=12, longest=1.0, share=1.0, seed=os.getpid())
    assert found.clean, found
    assert found.kills == 3 == found.coded + found.killed and found.coded and found.longest < END_SECONDS
