"""Text of strangers: what cannot be written again is refused when it is read."""

import pytest

from search_spaces.errors import InputError
from search_spaces.reading import parse_json


@pytest.mark.parametrize("text", ['["\\ud800"]', b'["\\udfff"]', b'{"\xed\xa0\x80": 1}', '["\ud800"]'])
def test_half_a_character_is_refused_in_one_line(text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"^table: not JSON, or truncated \(.*\); restore it$"):
        parse_json(text, "table", "restore it")


def test_whole_characters_are_read() -> None:
    assert parse_json('["\\ud83d\\ude00", "\\u00e9"]', "table", "restore it") == ["\U0001f600", "\u00e9"]
    assert parse_json('["caf\u00e9"]'.encode(), "table", "restore it") == ["caf\u00e9"]
