import csv
import io

import pytest

from search_spaces.sensitivity import SensitivityEntry, SensitivityTable
from search_spaces.spreadsheet import table


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1"])
def test_no_text_is_a_formula(text: str) -> None:
    entry = SensitivityEntry(text, "int8", 0.5, 1.0)
    written = SensitivityTable("onnx", "kl", "0" * 64, 1, (entry,), {}).to_csv()
    (read,) = csv.DictReader(io.StringIO(written, newline=""))
    assert read == {
        "rank": "1",
        "layer": "'" + text.replace("\r", " "),
        "format": "int8",
        "score": "0.5",
        "seconds": "1.000",
    }


def test_all_else_is_written_as_it_is() -> None:
    rows = [{"a": "/model.0/conv", "b": -1.5, "c": None, "d": "left out"}, {"a": "-0.25", "b": True}]
    assert table(["a", "b", "c"], rows) == "a,b,c\n/model.0/conv,-1.5,\n-0.25,True,\n"
