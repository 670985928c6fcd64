"""What fp16 cannot hold is said and logged once a study knows its ranges."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from dialects import ORT, TRT

from objectives.quantization.calibration import CalibrationTable
from objectives.quantization.materialize import Materializer
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.precision import record_precision
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder

Read = Callable[..., Inputs]


def _reaching(table: CalibrationTable, tensor: str, high: float) -> CalibrationTable:
    """The table of a model whose tensor goes further."""
    data = json.loads(table.to_json())
    data["extremes"][tensor] = [0.0, high]
    return CalibrationTable.from_json(json.dumps(data))


def test_nodes_that_stay_are_events_and_lines(read: Read, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = read()
    layer = inputs.graph.quantizable[2]
    table = _reaching(ensure_calibration(inputs, run), layer.output, 1e6)
    capsys.readouterr()
    record_precision(Materializer(inputs.graph, table, TRT), run)
    (event,) = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert event["event"] == "fp32" and layer.name in {node["node"] for node in event["nodes"]}
    assert layer.name in capsys.readouterr().err


def test_nothing_is_said_where_nothing_stays(read: Read, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = read()
    table = ensure_calibration(inputs, run)
    capsys.readouterr()
    record_precision(Materializer(inputs.graph, table, TRT), run)
    record_precision(Materializer(inputs.graph, _reaching(table, inputs.graph.input, 1e6), ORT), run)
    assert not run.log_file.exists() and capsys.readouterr().err == ""
