"""Calibration images from a folder, from a split and from lists of other systems; lists of ours: test_dataset.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from known_detector import pictures

from objectives.tasks.detection.data import calibration_set
from objectives.tasks.detection.data.calibration_set import check_disjoint, load_calibration
from objectives.tasks.detection.data.dataset import load_dataset
from search_spaces.errors import InputError


def names(path: Path, limit: int | None = None) -> list[str]:
    return [image.path.name for image in load_calibration(path, limit).images]


def test_a_folder_is_drawn_from_the_same_way_everywhere(tmp_path: Path) -> None:
    pictures(tmp_path / "here" / "deep", 9)
    (tmp_path / "here" / "._part 0.png").write_bytes(b"left by a Mac")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    every = names(tmp_path / "here")
    assert sorted(every) == [f"part {index}.png" for index in range(9)] and every != sorted(every)
    assert names(tmp_path / "there", 4) == every[:4]
    drawn = load_calibration(tmp_path / "here", 4)
    assert drawn.notes == (f"{tmp_path / 'here'}: calibration takes 4 of its 9 images, always the same",)
    assert not load_calibration(tmp_path / "here").notes
    assert [image.id for image in drawn.images] == [0, 1, 2, 3]


def test_a_folder_is_drawn_from_sparingly_and_no_content_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pictures(tmp_path / "set", 6)
    for index, file in enumerate(files[:3]):
        shutil.copy(file, tmp_path / "set" / f"again {index}.png")
    loaded = load_calibration(tmp_path / "set")
    assert len({image.sha256 for image in loaded.images}) == len(loaded) == 6
    with pytest.raises(InputError, match="holds 6 different images, fewer than the 7"):
        load_calibration(tmp_path / "set", 7)
    monkeypatch.setattr(calibration_set, "_DRAWN", 5)
    assert len(load_calibration(tmp_path / "set")) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        load_calibration(tmp_path / "empty")


def test_the_train_split_of_a_data_yaml(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "images", 5)
    path = tmp_path / "data.yaml"
    path.write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: [part]\n")
    assert names(path) == names(tmp_path / "train" / "images")
    path.write_text("val: ../train/images\nnames: [part]\n")
    with pytest.raises(InputError, match=r"has no 'train' split \(it has: val\)"):
        load_calibration(path)


def test_images_that_are_evaluated_on_are_refused_with_a_remedy(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 3)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "part 0.txt").write_text("0 0.5 0.5 0.1 0.1")
    path = tmp_path / "data.yaml"
    path.write_text("train: images\nval: images\nnames: [part]\n")
    with pytest.raises(InputError, match=r"3 calibration images are also evaluated on: .*calibrate on other images"):
        check_disjoint(load_calibration(path), load_dataset(path))


def test_lists_of_windows_and_of_joined_files(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "train", 4)
    rows = ["train\\part 3.png", "./train/part 1.png", f"{tmp_path / 'set' / 'train' / 'part 0.png'}"]
    listing = tmp_path / "set" / "list.txt"
    listing.write_bytes("\ufeff".join(["", f"{rows[0]}\r\n", f"{rows[1]} \r\n{rows[2]}"]).encode())
    assert names(listing) == ["part 3.png", "part 1.png", "part 0.png"]
    listing.write_bytes("\n".join(rows).encode("utf-16"))
    assert names(listing) == ["part 3.png", "part 1.png", "part 0.png"]
    listing.write_bytes(b"train/caf\xe9.png")
    with pytest.raises(InputError, match="not a text file; write one image path per line"):
        load_calibration(listing)
