"""CSV of texts that anybody may have written: a spreadsheet shows a layer's name and never computes it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

_FORMULA = tuple("=+-@＝＋－＠")  # how the texts begin that spreadsheets take for formulas, also in full width


def table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Returns a head and a line for each row; what a row has no value for is empty, what has no column is left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """A text that would be a formula behind an apostrophe; numbers as they are, also negative ones."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # the writer does not quote it, and readers end a line there
    if not text.lstrip().startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
