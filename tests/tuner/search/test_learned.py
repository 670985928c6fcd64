from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tuner.launch import launch
from tuner.search.learned import Learned, rank
from tuner.study.run_folder import read_json
from tuner.study.study_file import read_study


def test_rank_correlations_by_hand() -> None:
    found = rank(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3]))
    assert (found.spearman, found.kendall) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert rank(np.ones(3), np.arange(3.0)).spearman is None


@pytest.mark.parametrize("trials", [5, 14])
def test_the_report_tells_what_was_learned_or_why_not(
    study_file: Callable[..., Path], tmp_path: Path, trials: int
) -> None:
    run = launch(read_study(study_file(search={"trials": trials, "sampler": "random"})), tmp_path / "run")
    found = read_json(run.learned, Learned)
    page = run.report.read_text(encoding="utf-8")
    assert "What the models learned" in page
    if trials < 8:
        assert found.reason in page and not found.effects
        return
    assert found.believed is not None and found.believed.count == len(found.effects) > 0
    assert all(effect.deviation > 0 for effect in found.effects)
    assert "Prior against observed losses of schemes (in-sample): Spearman" in page
