"""A study is prepared once; what joins later reads the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tuner.prepare.images import data_of
from tuner.prepare.prepared import ensure_parts, prepare_study
from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study
from tuner.terminal.progress import silent

Read = Callable[..., Inputs]
MADE_ONCE = ("calibration.json", "sensitivity.json", "cache/weights.npz", "cache/costs.json")


def test_a_second_look_makes_nothing_anew(read: Read, run: RunFolder) -> None:
    inputs = read("objectives=[map_50_95, latency_ms, weight_mib]")
    first = prepare_study(inputs, run)
    kept = {name: (run.path / name).stat().st_mtime_ns for name in MADE_ONCE}
    titles: list[str] = []

    def noting(title: str, total: int):
        titles.append(title)
        return silent(title, total)

    second = prepare_study(inputs, run, noting)
    assert titles == [] and kept == {name: (run.path / name).stat().st_mtime_ns for name in MADE_ONCE}
    assert second.costs == first.costs and second.sensitivity == first.sensitivity
    assert second.parts.calibration.to_json() == first.parts.calibration.to_json()


@pytest.mark.parametrize(
    ("changes", "costs"),
    [
        (["objectives=[map_50_95, weight_mib]"], {"weights": "bytes"}),
        (["objectives=[map_50_95, latency_ms]"], {"latency": "ms"}),
        (
            ["objectives=[map_50_95, latency_ms]", "constraints.max_weight_mib=1.0"],
            {"latency": "ms", "weights": "bytes"},
        ),
    ],
)
def test_costs_are_those_of_the_objectives_and_bounds(
    read: Read, run: RunFolder, changes: list[str], costs: dict[str, str]
) -> None:
    found = prepare_study(read("weights.method=rtn", *changes), run).costs
    assert {name: table.unit for name, table in found.items()} == costs
    assert run.costs.exists() == ("latency" in costs)


def test_the_prior_of_the_weights_is_what_an_artifact_weighs(read: Read, run: RunFolder) -> None:
    inputs = read()
    study = prepare_study(inputs, run)
    scheme = inputs.space.allocation(inputs.space.project("w4a16"))
    assert study.costs["weights"].total(scheme) == study.parts.materializer.materialize(scheme).size.weight_bytes


def test_a_replay_is_prepared_without_images(study_file: Callable[..., Path], run: RunFolder) -> None:
    inputs = read_inputs(read_study(study_file()))
    study = prepare_study(inputs, run)
    assert study.parts is None and len(study.sensitivity.entries) > 0 and study.costs
    assert not run.calibration.exists()
    for needing_images in (data_of, lambda replayed: ensure_parts(replayed, run)):
        with pytest.raises(InputError, match="'replay' has no images and no artifacts"):
            needing_images(inputs)
