"""A small model and study files for the tests of the search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from chain_model import chain
from command_line import tuner  # noqa: F401  a fixture of all tests here


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study that replays scores: ``study_file(replay={"delay": 0.1}, search={"trials": 5})``."""

    def write(replay: dict | None = None, layers: int = 12, **sections: object) -> Path:
        chain(tmp_path / "model.onnx", layers)
        (tmp_path / "replay.json").write_text(json.dumps(replay or {}))
        study: dict = {
            "name": "tiny",
            "model": {"path": "model.onnx"},
            "runtime": {"name": "replay", "file": "replay.json"},
            "search": {"trials": 20},
        }
        for name, value in sections.items():
            study[name] = {**study[name], **value} if isinstance(study.get(name), dict) else value
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study))
        return path

    return write
