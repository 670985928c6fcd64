"""What a study reads of data yamls and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from known_detector import NAMES, coco_set, known_detector, pictures, yolo_set

from search_spaces.errors import InputError
from tuner.study.inputs import Data, read_inputs
from tuner.study.study_file import read_study, write_study


def read(folder: Path, **data: object) -> Data:
    known_detector(folder / "known.onnx")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "parts", "model": {"path": "known.onnx"}, "data": data}))
    config = read_study(path)
    (folder / "again.yaml").write_text(write_study(config, folder))
    found = read_inputs(read_study(folder / "again.yaml"))
    assert found.data is not None
    assert found.notes == (*found.data.full.notes, *found.data.calibration.notes)
    return found.data


def test_one_data_yaml_is_all_that_a_study_needs(tmp_path: Path) -> None:
    yolo_set(tmp_path / "set", "valid/images", "valid/labels", 2)
    yolo_set(tmp_path / "set", "test/images", "test/labels", 3)
    for index, picture in enumerate(pictures(tmp_path / "set" / "train" / "images", 4)):
        picture.write_bytes(picture.read_bytes() + b"%d" % index)  # other contents than the others'
    keys = {"train": "../train/images", "val": "../valid/images", "test": "../test/images", "names": list(NAMES)}
    (tmp_path / "set" / "data.yaml").write_text(yaml.safe_dump(keys))
    found = read(tmp_path, images="set/data.yaml", calibration="set/data.yaml")
    assert len(found.full) == 2 and len(found.calibration) == 4
    found = read(tmp_path, images="set/data.yaml", split="test", calibration="set/train")
    assert len(found.full) == 3 and len(found.calibration) == 4
    with pytest.raises(InputError, match=r"data\.split: .*'tests'"):
        read(tmp_path, images="set/data.yaml", split="tests", calibration="set/train")


def test_joined_categories_are_one_for_the_whole_study(tmp_path: Path) -> None:
    labels = coco_set(tmp_path / "images")
    data = json.loads(labels.read_text())
    data["categories"].append({"id": 30, "name": "Bolt"})
    data["annotations"][0]["category_id"] = 30
    labels.write_text(json.dumps(data))
    for picture in pictures(tmp_path / "calibration", 2):
        picture.write_bytes(picture.read_bytes() + b"other")
    found = read(tmp_path, images="images", annotations="labels.json", calibration="calibration")
    assert 30 not in found.full.category_ids == found.search.category_ids
    assert any("count as one: class 0 'bolt'" in note for note in found.full.notes)
