"""TensorRT-RTX on a machine without such a GPU: what it builds, emulates and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_detectors import build_detector

from objectives.quantization.weights import WeightSettings
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.registry import ahead_of_time_builder, open_runtime, parse_settings
from objectives.runtimes.support import SupportKind
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED
from objectives.runtimes.tensorrt_rtx.capability import parse_capability, rtx_support
from objectives.runtimes.tensorrt_rtx.one_layer import SupportTable
from objectives.runtimes.tensorrt_rtx.runtime import TensorRtRtx
from objectives.runtimes.tensorrt_rtx.settings import TensorRtRtxSettings
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS
from search_spaces.model_graph import ModelGraph


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TensorRtRtx:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    monkeypatch.setenv("TUNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = open_runtime(parse_settings({"name": "tensorrt-rtx", "compute_capability": 12.0}))
    assert isinstance(found, TensorRtRtx)
    return found


@pytest.mark.parametrize(("given", "read"), [("12.0", "12.0"), (12.0, "12.0"), ("sm_89", "8.9"), (86, "8.6")])
def test_how_a_capability_may_be_written(given: object, read: str) -> None:
    settings = parse_settings({"name": "tensorrt-rtx", "compute_capability": given})
    assert isinstance(settings, TensorRtRtxSettings)
    assert settings.compute_capability == read


@pytest.mark.parametrize("given", ["9.0", "latest", 7, True])
def test_a_capability_that_it_does_not_build_for(given: object) -> None:
    with pytest.raises(ValidationError):
        parse_settings({"name": "tensorrt-rtx", "compute_capability": given})
    if isinstance(given, str):
        with pytest.raises(InputError, match=rf"compute capability '{given}'"):
            parse_capability(given)


def test_formats_by_capability() -> None:
    found = {cap: {name: rtx_support(fmt, cap).kind for name, fmt in FORMATS.items()} for cap in ((8, 6), (8, 9))}
    assert found[8, 6]["fp8"] is SupportKind.IMPOSSIBLE and found[8, 9]["fp8"] is SupportKind.COMPUTES
    assert {found[cap]["w4a8"] for cap in found} == {SupportKind.IMPOSSIBLE}
    assert found[8, 6]["w4a16"] is SupportKind.STORES and found[8, 6]["int8"] is SupportKind.COMPUTES


def test_without_such_a_gpu_it_builds_and_does_not_run(rtx: TensorRtRtx, tmp_path: Path) -> None:
    rtx.check()
    assert "12.0" in rtx.emulated
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "scores"))
    model = rtx.file_model(graph)
    assert isinstance(model, bytes)
    plan, seconds = rtx.build(model, graph)
    assert plan.stat().st_size > 0 and seconds > 0
    assert rtx.build(model, graph) == (plan, 0.0)
    with pytest.raises(RuntimeUnavailable, match=r"compute capability 12\.0.*`tuner build`"), rtx.open(model, graph):
        pass


def test_which_gpu_must_be_told(rtx: TensorRtRtx) -> None:
    nameless = open_runtime(parse_settings({"name": "tensorrt-rtx"}))
    with pytest.raises(RuntimeUnavailable, match=r"name the GPU to build for, e\.g\. runtime\.compute_capability"):
        nameless.check()


def test_its_engines_are_built_ahead_of_time() -> None:
    assert ahead_of_time_builder() == "tensorrt-rtx"


def test_single_layers_tell_what_cannot_be_built(rtx: TensorRtRtx, tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "raw"))
    names = [layer.name for layer in graph.quantizable]
    wanted = {"int8": names, "fp8": names[:4], "w4a16": names}
    table = SupportTable(tmp_path / "support.json", STRONGLY_TYPED, (8, 6))
    found = table.unbuildable(graph, wanted, WeightSettings("auto", block_size=8))
    assert set(found) == {(name, "fp8") for name in names[:4]}
    assert all("HW-specific datatypes" in reason for reason in found.values())
    kept = SupportTable(tmp_path / "support.json", STRONGLY_TYPED, (8, 6))
    written = (tmp_path / "support.json").stat().st_mtime_ns
    assert kept.unbuildable(graph, wanted, WeightSettings("auto", block_size=8)) == found
    assert (tmp_path / "support.json").stat().st_mtime_ns == written  # nothing was built again


def test_what_the_dialect_refuses_is_not_built(rtx: TensorRtRtx, tmp_path: Path) -> None:
    graph = ModelGraph(build_detector(tmp_path / "m.onnx", "raw"))
    name = graph.quantizable[0].name
    found = rtx.never_built(graph, {"w4a8": [name]}, WeightSettings("rtn"))
    assert "int4 weights beside fp8 inputs" in found[name, "w4a8"]
    assert not (rtx.cache.folder / "support.json").exists()
