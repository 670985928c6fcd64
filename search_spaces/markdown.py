"""Markdown of texts that anybody may have written: names of layers, studies and files."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def plain(text: str) -> str:
    """A text that is shown as it is: no HTML, no link, no emphasis, one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """A text as a code span of one line, also inside a table."""
    line = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line or not line else ""
    return f"{fence}{space}{line}{space}{fence}".replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; one line a row, each with its end."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
