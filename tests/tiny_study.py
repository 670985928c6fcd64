"""A study of a tiny detector on drawn scenes, whose preparations take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tiny_detectors import build_detector, write_calibration, write_dataset


def write_tiny_study(
    folder: Path, name: str, *, formats: list[str], data: dict[str, Any] | None = None, **sections: Any
) -> Path:
    """Writes model, images, labels, calibration list and study file, and returns the last.

    Args:
        folder: Where all of it goes; exists.
        name: Of the study.
        formats: To choose from, stage by stage.
        data: Further keys of the section.
        sections: Further sections of the file.
    """
    write_dataset(folder, build_detector(folder / "m.onnx"), 6)
    write_calibration(folder)
    given = {"images": "images", "annotations": "labels.json", "calibration": "calibration.txt"}
    study = {
        "name": name,
        "model": {"path": "m.onnx"},
        "data": {**given, **(data or {})},
        "space": {"granularity": "stage", "formats": formats},
        "calibration": {"method": "max"},
        "sensitivity": {"images": 2},
        **sections,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path
