"""Text of strangers: what cannot be written again is refused when it is read."""

import hashlib
import os
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.reading import (
    MAX_LINE,
    digest_of,
    each_line,
    parse_json,
    read_json,
    read_lines,
    read_sized,
    read_yaml,
)


@pytest.mark.parametrize("text", ['["\\ud800"]', b'["\\udfff"]', b'{"\xed\xa0\x80": 1}', '["\ud800"]'])
def test_half_a_character_is_refused_in_one_line(text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"^table: not JSON, or truncated \(.*\); restore it$"):
        parse_json(text, "table", "restore it")


def test_whole_characters_are_read() -> None:
    assert parse_json('["\\ud83d\\ude00", "\\u00e9"]', "table", "restore it") == ["\U0001f600", "\u00e9"]
    assert parse_json('["caf\u00e9"]'.encode(), "table", "restore it") == ["caf\u00e9"]


def _sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_no_reader_takes_a_file_before_its_size(tmp_path: Path) -> None:
    huge = _sparse(tmp_path / "huge", 20 << 30)
    for read in (
        lambda: read_json(huge, "give labels"),
        lambda: read_lines(huge, "give a list"),
        lambda: read_yaml(huge, "study file"),
        lambda: read_sized(huge, 100, "give another"),
        lambda: digest_of(huge, 100, "give another"),
        lambda: ModelGraph(huge),
    ):
        with pytest.raises(InputError, match=r"huge: 20\.0 GiB is too large \(at most .*\); .*"):
            read()


def test_labels_of_the_largest_sets_are_taken_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_MEMORY_GIB", "1")
    with pytest.raises(InputError, match="not JSON"):  # it was read: COCO's train labels have 450 MB
        read_json(_sparse(tmp_path / "coco.json", 450 << 20), "give labels")
    with pytest.raises(InputError, match="TUNER_MEMORY_GIB"):
        read_json(_sparse(tmp_path / "more.json", 3 << 30), "give labels")


def test_a_fifo_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=r"no regular file; give another|directory"):
            read_sized(path, 100, "give another")


def test_what_fits_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    assert read_sized(path, 100, "") == bytes(range(100))
    assert digest_of(path, 100, "") == hashlib.sha256(bytes(range(100))).hexdigest()
    with pytest.raises(InputError, match=r"x: 100 bytes is too large \(at most 99 bytes\); take another"):
        read_sized(path, 99, "take another")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_any_editor(tmp_path: Path, encoding: str, ends: str) -> None:
    (tmp_path / "list").write_bytes(ends.join(["a.jpg ", "", "\ufeff\tb \u00e9.jpg"]).encode(encoding))
    assert read_lines(tmp_path / "list", "write it again") == ["a.jpg", "", "b \u00e9.jpg"]


def test_lines_are_read_no_further_than_they_are_taken(tmp_path: Path) -> None:
    """A file that the first line tells to be something else may hold what is no text, and a lot of it."""
    path = _sparse(tmp_path / "list", 200 << 20)
    with path.open("r+b") as file:
        file.write(b"root:x:0:0\n" * 10_000 + b"\xff\xff")
    assert next(each_line(path, "write it again")) == "root:x:0:0"
    with pytest.raises(InputError, match=r"list: not a text file; write it again"):
        read_lines(path, "write it again")


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list: a line of it is too long; write it again"):
        read_lines(_sparse(tmp_path / "list", MAX_LINE + 1), "write it again")
