"""Graphs of every format and granularity, and mixes of them, built by the installed TensorRT-RTX on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_detectors import build_detector

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.runtimes.tensorrt.dialect import STRONGLY_TYPED
from objectives.runtimes.tensorrt_rtx.capability import parse_capability
from objectives.runtimes.tensorrt_rtx.runtime import TensorRtRtx
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED, Granularity
from search_spaces.model_graph import ModelGraph

pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")

TARGETS = ["8.6", "8.9", "12.0"]


class Room:
    """A model, its ranges on noise, and what builds it."""

    def __init__(self, path: Path) -> None:
        self.graph = ModelGraph(path)
        self.names = [layer.name for layer in self.graph.quantizable]
        image = np.random.default_rng(0).random(self.graph.input_shape, dtype=np.float32)
        self.table: CalibrationTable = calibrate(self.graph, [image], "max")

    def materializer(self, target: str, granularity: Granularity = Granularity.AUTO) -> Materializer:
        settings = WeightSettings("rtn", granularity, block_size=32 if len(self.names) > 30 else 8)
        return Materializer(self.graph, self.table, _runtime(target).dialect(), settings)

    def build(self, target: str, allocation: Allocation, granularity: Granularity = Granularity.AUTO) -> int:
        """Bytes of the engine."""
        from objectives.runtimes.tensorrt_rtx.build import build_engine

        artifact = self.materializer(target, granularity).materialize(allocation)
        artifact.check()
        assert artifact.build is None  # the file itself is what is built
        return len(build_engine(artifact.data, parse_capability(target))[0])

    def uniform(self, fmt: str) -> Allocation:
        """Every layer that can have the format."""
        return Allocation.uniform([x.name for x in self.graph.quantizable if not x.lacks(FORMATS[fmt])], fmt)

    def drawn(self, target: str, count: int) -> list[Allocation]:
        """Random mixes of what the target is not refused."""
        draw = np.random.default_rng(0)
        dialect = _runtime(target).dialect()
        built = [fmt for fmt in FORMATS.values() if not dialect.refuses(fmt)]
        formats = {x.name: [fmt.name for fmt in built if not x.lacks(fmt)] for x in self.graph.quantizable}
        return [Allocation.of({n: str(draw.choice(formats[n])) for n in self.names}) for _ in range(count)]


def _runtime(target: str) -> TensorRtRtx:
    found = open_runtime(parse_settings({"name": "tensorrt-rtx", "compute_capability": target}))
    assert isinstance(found, TensorRtRtx)
    return found


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(build_detector(tmp_path_factory.mktemp("model") / "m.onnx", "end_to_end"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_uniform_format_builds_or_is_refused_by_its_rule(room: Room, fmt: str, target: str) -> None:
    why = _runtime(target).dialect().refuses(FORMATS[fmt])
    if why:
        assert "choose" in why
        assert any(number.name in why for number in (FORMATS[fmt].weight, FORMATS[fmt].activation))
        return
    for granularity in Granularity:
        assert room.build(target, room.uniform(fmt), granularity) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_mixes_build(room: Room, target: str) -> None:
    for allocation in room.drawn(target, 12):
        assert room.build(target, allocation) > 0


def _builds(real: Room, target: str) -> dict[tuple[str, Granularity], int]:
    """Builds every uniform scheme and 12 mixes; returns the bytes of the uniform ones."""
    dialect = _runtime(target).dialect()
    sizes = {}
    for fmt in [name for name, fmt in FORMATS.items() if not dialect.refuses(fmt)]:
        for granularity in Granularity if FORMATS[fmt].quantizes_weight else [Granularity.AUTO]:
            sizes[fmt, granularity] = real.build(target, real.uniform(fmt), granularity)
    for allocation in real.drawn(target, 12):
        assert real.build(target, allocation) > 0
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some ninety engines
@pytest.mark.parametrize("family", ["yolov3-tiny", "yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo26n"])
def test_untrained_ultralytics_exports_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.chdir(tmp_path)
    ultralytics = pytest.importorskip("ultralytics", reason="needs the extra torch")
    path = ultralytics.YOLO(f"{family}.yaml").export(format="onnx", imgsz=320, opset=17, simplify=False, verbose=False)
    real = Room(Path(path))
    for target in TARGETS:
        assert _builds(real, target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["yolov8n", "yolov10s"])
def test_real_detectors_build(shared_data: Path, name: str, target: str) -> None:
    sizes = _builds(Room(shared_data / "models" / f"{name}.onnx"), target)
    assert sizes["w4a16", Granularity.AUTO] < sizes[UNQUANTIZED, Granularity.AUTO]


def test_what_a_gpu_lacks_is_refused_before_it_is_built(room: Room) -> None:
    """The builder's own answer is the reason of the rule."""
    from objectives.runtimes.tensorrt_rtx.build import build_engine

    made = Materializer(room.graph, room.table, STRONGLY_TYPED, WeightSettings("rtn"))
    for fmt, least, gpu in (("fp8", "8.9", "8.6"), ("nvfp4", "12.0", "8.9")):
        artifact = made.materialize(room.uniform(fmt))
        with pytest.raises(BuildError, match="HW-specific datatypes"):
            build_engine(artifact.data, parse_capability(gpu))
        assert f"capability {least} on (this is {gpu})" in _runtime(gpu).dialect().refuses(FORMATS[fmt])


def test_what_does_not_parse_names_the_layer(room: Room) -> None:
    from objectives.runtimes.tensorrt_rtx.build import build_engine

    model = onnx.ModelProto()
    model.CopyFrom(room.graph.model)
    layer = room.graph.quantizable[3].name
    node = next(node for node in model.graph.node if node.name == layer)
    node.op_type = "ConvInteger"
    with pytest.raises(BuildError, match="does not parse") as error:
        build_engine(model.SerializeToString(), (8, 9), room.names)
    assert error.value.layer == layer


def test_an_operator_that_it_lacks_is_named_before_anything_is_built(tmp_path: Path) -> None:
    """Should it have NonZero one day, the build below succeeds, and the operator is no longer to be refused."""
    from objectives.runtimes.tensorrt_rtx.build import build_engine

    model = onnx.load(build_detector(tmp_path / "m.onnx", "torchvision"))
    last = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("NonZero", [last], ["kept"], name="kept"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, None))
    onnx.save(model, tmp_path / "m.onnx")
    graph = ModelGraph(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="holds NonZero, which TensorRT-RTX does not have; export without NMS"):
        _runtime("8.9").check_operators(graph)
    with pytest.raises(BuildError, match="NonZero"):
        build_engine(graph.model.SerializeToString(), parse_capability("8.9"))
