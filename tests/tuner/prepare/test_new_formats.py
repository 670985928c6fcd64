"""A format that is new in the table goes through a whole study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from objectives.runtimes.registry import default_runtime
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, Format, Number, NumberSpec
from tuner.launch import launch
from tuner.results.loaded import load_run
from tuner.study.inputs import gains
from tuner.study.study_file import read_study

INT16 = NumberSpec("int16", "INT16", 16, -32767.0, 32767.0, opset=21)


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    new = (Format("w4a8i", Number.INT4, Number.INT8), Format("w8a16i", Number.INT8, INT16))
    FORMATS.update({fmt.name: fmt for fmt in new})
    yield
    for fmt in new:
        del FORMATS[fmt.name]


def test_it_is_searched_and_reported(study_file: Callable[..., Path], tmp_path: Path) -> None:
    names = ["fp16", "int8", "w4a8i", "w8a16i"]
    objectives = ["map_50_95", "latency_ms", "weight_mib"]
    study = study_file(search={"trials": 14}, space={"formats": names}, objectives=objectives)
    run = launch(read_study(study), tmp_path / "run")
    records = load_run(run.path).records
    assert {f"uniform:{name}" for name in names[1:]} <= {record.origin for record in records}
    uniform = {record.origin: record.scores for record in records}
    assert uniform["uniform:w4a8i"].size.weight_bytes < uniform["uniform:int8"].size.weight_bytes
    assert uniform["uniform:w4a8i"].latency_ms < uniform["reference"].latency_ms
    assert "w4a8i" in (run.path / "report.html").read_text()
    assert "w8a16i" in (run.path / "layer-sensitivity-report.md").read_text()


def test_what_it_gains_follows_from_its_numbers(study_file: Callable[..., Path]) -> None:
    study, cpu = read_study(study_file()), default_runtime()
    assert gains(study, cpu, "w4a8i") and not gains(study, cpu, "w8a16i")
    with pytest.raises(InputError, match="unknown format 'w4a9'; did you mean"):
        gains(study, cpu, "w4a9")
