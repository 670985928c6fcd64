"""A small study on real parts whose preparations can be made in a second, and its empty run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import write_tiny_study

from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study


@pytest.fixture(scope="session")
def prepare_study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, objectives = tmp_path_factory.mktemp("prepare"), ["map_50_95", "weight_mib"]
    return write_tiny_study(path, "prepared", formats=["fp16", "int8", "w4a16"], objectives=objectives)


@pytest.fixture
def read(prepare_study_file: Path) -> Callable[..., Inputs]:
    """Reads the study with some keys changed: ``read("runtime.batch=2")``."""
    return lambda *changes: read_inputs(read_study(prepare_study_file, list(changes)))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "name: prepared\n")
