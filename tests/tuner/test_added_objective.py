"""An objective of another package: one file and one entry point, from the study file to front and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from added_package import install, tuner

MODULE = """
from objectives.objective import Objective


def bits(result):
    return result.size.average_weight_bits


BITS = Objective("weight_bits", "mean width", "bits", "minimize", bits, 1.1, "weights", "{:.3f}".format)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed package that adds ``weight_bits``."""
    return install(tmp_path / "site", MODULE, "[tuner.objectives]\nweight_bits = added:BITS\n")


@pytest.mark.parametrize("objectives", [["map_50_95", "weight_bits"], ["weight_bits", "latency_ms", "map_50_95"]])
def test_it_is_searched_told_and_shown(
    package: Path, study_file: Callable[..., Path], tmp_path: Path, objectives: list[str]
) -> None:
    study, run = study_file(objectives=objectives, search={"trials": 20}), tmp_path / "run"
    done = tuner(package, "run", study, "--run", run)
    assert done.returncode == 0, done.stderr
    kept = optuna.load_study(study_name="tiny", storage=f"sqlite:///{run / 'study.db'}")
    assert kept.metric_names == objectives and len(kept.trials) == 20
    place = objectives.index("weight_bits")
    assert all(t.values[place] == t.system_attrs["tuner:scores"]["size"]["average_weight_bits"] for t in kept.trials)
    members = json.loads((run / "front.json").read_text())["front"]
    assert members and all(entry["weight_bits"] == entry["average_weight_bits"] for entry in members)
    assert "mean width, bits" in (run / "front.md").read_text()
    assert "weight_bits" in (run / "front.csv").read_text().splitlines()[0].split(",")
    page = (run / "report.html").read_text()
    assert "<th>mean width, bits</th>" in page
    if "latency_ms" not in objectives:
        assert '"text":"mean width, bits"' in page, "the axis of the Pareto figure"
    assert "mean width, bits" in tuner(package, "front", run).stdout


def test_it_is_known_by_name_and_cannot_be_screened(package: Path, study_file: Callable[..., Path]) -> None:
    wrong = tuner(package, "run", study_file(objectives=["map_50_95", "weight_bit"]))
    assert wrong.returncode == 2 and "did you mean 'weight_bits'?" in wrong.stderr
    data = {"images": "i", "annotations": "a", "calibration": "c"}
    search = {"screening": {"images": 16}}
    runtime = {"name": "onnxruntime-cpu", "file": None}
    early = tuner(
        package,
        "run",
        study_file(objectives=["map_50_95", "weight_bits"], data=data, search=search, runtime=runtime),
    )
    assert early.returncode == 2 and "search.screening: weight_bits is not known before" in early.stderr
