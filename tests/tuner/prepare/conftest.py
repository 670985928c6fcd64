"""A small study on real parts whose preparations can be made in a second, and its empty run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_detectors import build_detector, write_calibration, write_dataset

from tuner.study.inputs import Inputs, read_inputs
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study


@pytest.fixture(scope="session")
def prepare_study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepare")
    model = build_detector(path / "m.onnx")
    write_dataset(path, model, 6)
    write_calibration(path)
    study = {
        "name": "prepared",
        "model": {"path": "m.onnx"},
        "data": {"images": "images", "annotations": "labels.json", "calibration": "calibration.txt"},
        "space": {"granularity": "stage", "formats": ["fp16", "int8", "w4a16"]},
        "calibration": {"method": "max"},
        "objectives": ["map_50_95", "weight_mib"],
        "sensitivity": {"images": 2},
    }
    (path / "study.yaml").write_text(yaml.safe_dump(study))
    return path / "study.yaml"


@pytest.fixture
def read(prepare_study_file: Path) -> Callable[..., Inputs]:
    """Reads the study with some keys changed: ``read("runtime.batch=2")``."""
    return lambda *changes: read_inputs(read_study(prepare_study_file, list(changes)))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "name: prepared\n")
