"""Text of strangers: what cannot be written again is refused when it is read."""

import hashlib
import os
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from search_spaces.reading import digest_of, parse_json, read_json, read_lines, read_sized, read_yaml


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
