"""Names that anybody may have written, in Markdown that somebody's viewer turns into a page."""

import re

import pytest

from search_spaces import markdown
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable

NAMES = ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "a|b", "a`<b>`c", "``", "a\n# b", "*a* _b_", "\\"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_text_is_one_line_without_markup(name: str) -> None:
    text = markdown.plain(name)
    assert "\n" not in text and "<" not in text
    assert not re.search(r"(?<!\\)[`*_\[\]|]", text.replace("\\\\", ""))


@pytest.mark.parametrize("name", NAMES)
def test_a_code_span_ends_where_its_text_does(name: str) -> None:
    text = markdown.code(name)
    fence = re.match("`+", text).group()
    inner = text[len(fence) : -len(fence)]
    assert "\n" not in text and text.endswith(fence) and not re.search(rf"(?<!`){fence}(?!`)", inner)
    assert not re.search(r"(?<!\\)\|", text)
    assert inner.strip().replace("\\|", "|") == " ".join(name.split())


def test_a_layers_name_stays_in_its_cell() -> None:
    table = SensitivityTable("m", "onnx", "kl", 1, tuple(SensitivityEntry(name, "int8", 1.0) for name in NAMES))
    rows = [line for line in table.to_markdown().splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == len(NAMES)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
