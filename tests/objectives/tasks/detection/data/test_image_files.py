"""Image files: how many there may be, how large they may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from objectives.tasks.detection.data import image_files
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.data_yaml import read_data_yaml
from objectives.tasks.detection.data.dataset import load_dataset, load_unlabelled
from objectives.tasks.detection.data.image_files import images_in, read_image
from search_spaces.errors import InputError


def test_a_whole_disk_is_no_set_of_images(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("path: /\ntrain: .\nval: .\nnames: [a]\n")
    with pytest.raises(InputError, match=r"^/: .*name the folder that holds the images"):
        read_data_yaml(tmp_path / "data.yaml").images("val")


def test_what_is_no_image_counts_beside_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_MAX_OTHERS", 20)
    for number in range(300):
        (tmp_path / f"{number}.jpg").touch()
        (tmp_path / f"{number}.txt").touch()
    assert len(images_in(tmp_path)) == 300
    (tmp_path / "only").mkdir()
    for number in range(30):
        (tmp_path / "only" / f"{number}.txt").touch()
    with pytest.raises(InputError, match=r"only: 21 of the first entries in it are no images"):
        images_in(tmp_path / "only")


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("deep", *["d"] * 40).mkdir(parents=True)
    with pytest.raises(InputError, match="nested more than 32 deep"):
        images_in(tmp_path / "deep")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a.jpg").touch()
    assert images_in(tmp_path / "set") == [tmp_path / "set" / "a.jpg"]


def test_hidden_files_and_folders_hold_no_image(tmp_path: Path) -> None:
    for name in (".hidden/a.jpg", "b/.c.jpg", "b/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images_in(tmp_path) == [tmp_path / "b" / "c.jpg"]


def test_a_split_of_endless_entries_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"val: [{', '.join(['.'] * 2000)}]\nnames: [a]\n")
    with pytest.raises(InputError, match="'val' has 2000 entries"):
        read_data_yaml(tmp_path / "data.yaml")


def test_a_picture_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(5 << 30)
    assert read_image(tmp_path / "huge.jpg") is None
    with pytest.raises(InputError, match=r"huge\.jpg: 5\.0 GiB is too large"):
        load_unlabelled(tmp_path)
    with pytest.raises(InputError, match=r"huge\.jpg: 5\.0 GiB is too large"):
        load_calibration(tmp_path)
    os.mkfifo(tmp_path / "fifo.png")
    assert read_image(tmp_path / "fifo.png") is None


def test_labels_without_end_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "labels.json").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(InputError, match=r"labels\.json: 20\.0 GiB is too large"):
        load_dataset(tmp_path, tmp_path / "labels.json")
