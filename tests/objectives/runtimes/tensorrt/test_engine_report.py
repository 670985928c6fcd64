"""The inspector's answer read beside what was asked for; entries as TensorRT 8.6 and 10 write them."""

from typing import Any

import pytest
from tiny_detectors import build_detector

from objectives.runtimes.engine_report import EngineReport
from objectives.runtimes.tensorrt.engine_report import read_engine
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    path = tmp_path_factory.mktemp("engine") / "tiny.onnx"
    build_detector(path)
    return ModelGraph(path)


def _entry(name: str, kind: str, datatype: str) -> dict[str, Any]:
    tensor = {"Name": "x", "Format/Datatype": datatype}
    return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]}


def _read(graph: ModelGraph, second: str = "Int8 NC/32HW32") -> tuple[EngineReport, list[str]]:
    names = [layer.name for layer in graph.quantizable]
    entries = [
        _entry("Reformatting CopyNode for Input Tensor 0", "Reformat", "Row major linear FP32"),
        _entry(names[0], "CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
        _entry(f"{names[1]} + PWN(/x/Sigmoid)", "CaskConvolution", second),
        _entry("/unknown/Resize", "Resize", "Row major linear FP32"),
        _entry(names[2], "CaskGemmConvolution", "Int8 NC/32HW32"),
        {"Name": "{ForeignNode[/decode/Mul]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []},
    ]
    times = {entry["Name"]: 0.25 * (rank + 1) for rank, entry in enumerate(entries)}
    asked = Allocation.of({name: "int8" if name in names[1:3] else "fp16" for name in names})
    layers, unmet = read_engine(entries, times, graph, asked)
    return EngineReport(layers, unmet, 1000, 30.0, "8.6.1"), names


def test_layers_times_and_reformats(graph: ModelGraph) -> None:
    report, names = _read(graph)
    assert [layer.layer for layer in report.layers[1:3]] == names[:2]
    assert [layer.precision for layer in report.layers[:4]] == ["fp32", "fp16", "int8", "fp32"]
    assert report.reformats == 1 and report.reformat_ms == 0.25
    assert report.total_ms == pytest.approx(0.25 * 21)
    assert report.unmet == ()


def test_fp32_between_faster_layers_is_an_island(graph: ModelGraph) -> None:
    report, _ = _read(graph)
    assert report.fp32_islands == ("/unknown/Resize",)


def test_a_layer_that_did_not_get_its_format_is_named(graph: ModelGraph) -> None:
    report, names = _read(graph, "Row major linear FP32")
    assert report.unmet == ((names[1], "int8", "fp32"),)


def test_json_round_trip(graph: ModelGraph) -> None:
    report, _ = _read(graph, "Row major linear FP32")
    assert EngineReport.from_json(report.to_json()) == report
