"""Regular files alone are opened, whatever was planted in their place, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from search_spaces.durable import append_durably, write_durably
from search_spaces.errors import InputError
from search_spaces.regular import FILE, FOLDER, entries, open_appending, open_regular, read_regular


def link(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def bound_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has a hundred characters at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


ODD = [link, link_to_nothing, link_to_itself, os.mkfifo, bound_socket, Path.mkdir]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", ODD)
def test_what_is_no_file_is_neither_read_nor_appended_to(tmp_path: Path, plant) -> None:
    path = tmp_path / "log.jsonl"
    plant(path)
    before = sorted((entry.name, entry.lstat().st_size) for entry in tmp_path.iterdir())
    for use in (read_regular, open_appending, lambda given: append_durably(given, "line")):
        with pytest.raises(InputError, match=r"log.jsonl: is a .* where a file belongs"):
            use(path)
    assert sorted((entry.name, entry.lstat().st_size) for entry in tmp_path.iterdir()) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", [each for each in ODD if each is not Path.mkdir])
def test_what_is_no_file_is_replaced_by_one(tmp_path: Path, plant) -> None:
    path = tmp_path / "front.json"
    plant(path)
    write_durably(path, "own")
    assert not path.is_symlink() and read_regular(path) == b"own"
    assert not (tmp_path / "nothing").exists()
    assert plant is not link or (tmp_path / "elsewhere").read_text() == "mine"


def test_a_device_is_not_opened() -> None:
    with pytest.raises(InputError, match="is a device where a file belongs"):
        open_regular(Path(os.devnull))


def test_hard_links_are_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    os.link(tmp_path / "a", tmp_path / "b")
    with open_appending(tmp_path / "b") as file:
        file.write(b", two")
    assert read_regular(tmp_path / "a") == b"one, two"


def test_entries_are_told_with_their_kinds_and_links_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "file").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    (tmp_path / "run" / "deep" / "way-out").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "run" / "deep" / "er" / "pipe")
    assert {"/".join(parts): kind for parts, kind in entries(tmp_path / "run")} == {
        "deep": FOLDER,
        "deep/file": FILE,
        "deep/way-out": "a link",
        "deep/er": FOLDER,
        "deep/er/pipe": "a FIFO",
    }


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is too large"):
        read_regular(path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no file here holds more than it says")
def test_a_file_that_holds_more_than_it_says_is_refused() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    with pytest.raises(InputError, match="is too large"):
        read_regular(Path("/proc/self/maps"), 16)
