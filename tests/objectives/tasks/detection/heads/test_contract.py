"""What every head of the registry must do; a head of another package can be put to the same questions."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from scene_detectors import scene_detector
from tiny_detectors import build_detector, write_images

from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.heads.head import Candidate, NotThisHead
from objectives.tasks.detection.heads.registry import HEADS
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

LOW = Thresholds(confidence=0.01, iou=1.0)
SCENES = ("yolox", "yolov5", "yolov7", "rtdetr", "scores_normalised", "nms")
#: Heads that nothing in a graph tells from another; a model ends in them where its user says so.
BY_NAME = ("yolov7",)


def build(path: Path, name: str, names: bool = True) -> Path:
    """A tiny model that ends in a head, and is sure of nothing."""
    if name in SCENES:
        return scene_detector(path, name, names=names, gain=1)
    return build_detector(path, name, names=names)


@dataclass(frozen=True)
class Case:
    """A tiny model that ends in one head, and what it puts out for two images, one by one."""

    name: str
    graph: ModelGraph
    detector: Detector
    images: PreprocessedImages
    outputs: tuple[list[NDArray[np.generic]], ...]


#: What ONNX Runtime lacks is tested elsewhere, without running it.
NOT_RUN = ("nms_plugin",)


@pytest.fixture(scope="module", params=[name for name in HEADS.names() if name not in NOT_RUN])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    graph = ModelGraph(build(folder / "m.onnx", name))
    detector = recognise(graph, head=name if name in BY_NAME else None)
    records = hash_files([ImageRecord(i, path) for i, path in enumerate(write_images(folder / "images", 2))], folder)
    images = PreprocessedImages.build(records, detector.preprocessing, folder / "cache")
    with OnnxRuntimeRunner(graph.path) as runner:
        outputs = tuple(list(runner.infer(batch)) for batch in images.singles())
    return Case(name, graph, detector, images, outputs)


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_only_its_own_head_recognises_a_model(case: Case, tmp_path: Path, named: bool) -> None:
    graph = ModelGraph(build(tmp_path / "m.onnx", case.name, named))
    classes = case.detector.classes if named else ()
    fitting = []
    for name in HEADS.names():
        try:
            found = HEADS.get(name).recognise(Candidate(graph, (64, 64), classes))
        except NotThisHead as refusal:
            assert "\n" not in str(refusal) and "output0" in str(refusal)
        else:
            fitting.append(name)
            assert found.class_count == 3 and set(found.outputs) <= set(graph.outputs)
            assert found.preprocessing.size == (64, 64)
    assert fitting == ([] if case.name in BY_NAME else [case.name])
    assert recognise(graph, head=case.name if case.name in BY_NAME else None).name == case.name


def test_what_it_decodes_is_sorted_finite_and_of_the_models_classes(case: Case) -> None:
    for outputs in case.outputs:
        (rows,) = case.detector.decode(outputs, LOW)
        assert rows.dtype == np.float32 and rows.ndim == 2 and rows.shape[1] == 6 and len(rows) > 5
        assert np.isfinite(rows).all() and (np.diff(rows[:, 4]) <= 0).all()
        assert ((rows[:, 4] > LOW.confidence) & (rows[:, 4] <= 1)).all()
        assert (rows[:, 2:4] >= rows[:, :2]).all()
        assert set(rows[:, 5].tolist()) <= {0.0, 1.0, 2.0}


def test_thresholds_hold(case: Case) -> None:
    (rows,) = case.detector.decode(case.outputs[0], LOW)
    floor = float(rows[len(rows) // 2, 4])
    (confident,) = case.detector.decode(case.outputs[0], Thresholds(confidence=floor, iou=1.0))
    assert 0 < len(confident) < len(rows) and (confident[:, 4] > floor).all()
    (few,) = case.detector.decode(case.outputs[0], Thresholds(confidence=0.01, iou=1.0, max_detections=3))
    assert np.array_equal(few, rows[:3])
    (none,) = case.detector.decode(case.outputs[0], Thresholds(confidence=1.0))
    assert none.shape == (0, 6) and none.dtype == np.float32


def test_a_batch_is_its_images(case: Case) -> None:
    if case.name == "torchvision":
        pytest.skip("takes one image at a time")
    batch = [np.concatenate(parts) for parts in zip(*case.outputs, strict=True)]
    together = case.detector.decode(batch, LOW)
    assert len(together) == 2
    for rows, outputs in zip(together, case.outputs, strict=True):
        assert np.array_equal(rows, case.detector.decode(outputs, LOW)[0])


def test_rows_that_are_not_finite_are_left_out(case: Case) -> None:
    (whole,) = case.detector.decode(case.outputs[0], LOW)
    broken = [np.array(output) for output in case.outputs[0]]
    for position in case.detector.positions:
        if not np.issubdtype(broken[position].dtype, np.floating):
            continue
        flat = broken[position].reshape(-1)
        flat[:: max(1, flat.size // 7)] = np.nan
    with np.errstate(invalid="ignore"):
        (rows,) = case.detector.decode(broken, LOW)
    assert np.isfinite(rows).all() and len(rows) < len(whole)


def test_dense_outputs_are_what_it_decodes_from(case: Case) -> None:
    dense = case.detector.dense(case.graph)
    if dense is None:  # what is selected inside does not pair; of what was suppressed nothing is left
        assert case.name in ("rtdetr", "nms", "dfine", "torchvision")
        return
    extra = [name for name in dense.tensors if name not in case.graph.outputs]
    with OnnxRuntimeRunner(_with_outputs(case.graph, extra)) as runner:
        found = runner.infer(case.images.batch(0, 1))
        outputs = [found[runner.output_names.index(name)] for name in dense.tensors]
    probabilities = dense.probabilities(outputs)
    everywhere = np.arange(probabilities.shape[1])
    boxes = dense.boxes(outputs, everywhere)
    assert probabilities.shape == (3, len(boxes)) and boxes.shape[1] == 4 and len(boxes) >= 64
    some = np.array([5, 2, 60])
    assert np.array_equal(dense.probabilities(outputs, some), probabilities[:, some])
    assert np.array_equal(dense.boxes(outputs, some), boxes[some])
    factors = dense.factors()
    assert len(factors) == len(dense.tensors)
    for factor, output in zip(factors, outputs, strict=True):
        assert factor is None or np.broadcast_shapes(factor.shape, np.shape(output)) == np.shape(output)
    (rows,) = case.detector.decode(case.outputs[0], LOW)
    for row in rows[:10]:
        label = int(row[5])
        near = np.abs(boxes - row[:4]).max(1) + np.abs(probabilities[label] - row[4])
        assert near.min() < 1e-3, "no anchor says what was decoded"


def test_crosses_to_another_process(case: Case) -> None:
    copy = pickle.loads(pickle.dumps(case.detector))
    assert copy == case.detector
    for outputs in case.outputs:
        assert np.array_equal(copy.decode(outputs, LOW)[0], case.detector.decode(outputs, LOW)[0])


def test_its_name_overrides_nothing_where_it_is_right(case: Case) -> None:
    assert recognise(case.graph, head=case.name) == case.detector


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "tensorrt"])
def test_what_is_quantized_is_read_alike(case: Case, tmp_path: Path, runtime: str) -> None:
    dialect = open_runtime(parse_settings({"name": runtime})).dialect()
    materializer = Materializer(case.graph, calibrate(case.graph, case.images.singles(), "max"), dialect)
    allocation = Allocation.uniform([layer.name for layer in case.graph.quantizable], "int8")
    materializer.materialize(allocation).save(tmp_path / "int8.onnx")
    quantized = ModelGraph(tmp_path / "int8.onnx", allow_quantized=True)
    name = case.name if case.name in BY_NAME else None
    assert recognise(quantized, head=name) == case.detector
    named = [entry for entry in quantized.model.metadata_props if entry.key not in ("names", "task", "kpt_shape")]
    del quantized.model.metadata_props[:]
    quantized.model.metadata_props.extend(named)
    onnx.save(quantized.model, tmp_path / "bare.onnx")
    float_model = onnx.ModelProto()
    float_model.CopyFrom(case.graph.model)
    del float_model.metadata_props[:]
    onnx.save(float_model, tmp_path / "float.onnx")
    bare = ModelGraph(tmp_path / "bare.onnx", allow_quantized=True)
    assert recognise(bare, head=name).head == recognise(ModelGraph(tmp_path / "float.onnx"), head=name).head


def test_wrong_class_names_are_told_with_the_key(case: Case) -> None:
    with pytest.raises(InputError, match=r"model\.classes") as raised:
        recognise(case.graph, head=case.name, classes=["a", "b"])
    assert "\n" not in str(raised.value) and "2 class names" in str(raised.value)


def test_a_wrong_name_is_told_with_the_key(case: Case, tmp_path: Path) -> None:
    graph = _shapeless(tmp_path / "vector.onnx")
    with pytest.raises(InputError, match=rf"model\.head '{case.name}' does not fit: out has 2 axes") as raised:
        recognise(graph, head=case.name)
    assert "\n" not in str(raised.value)


def _with_outputs(graph: ModelGraph, names: list[str]) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def _shapeless(path: Path) -> ModelGraph:
    """A classifier: no head reads it."""
    from onnx import helper, numpy_helper

    weights = [
        numpy_helper.from_array(np.full((8, 3, 3, 3), 0.1, np.float32), "w"),
        numpy_helper.from_array(np.array([1, -1]), "shape"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="c", pads=[1] * 4),
        helper.make_node("Reshape", ["y", "shape"], ["out"], name="r"),
    ]
    taken = [helper.make_tensor_value_info("x", 1, [1, 3, 64, 64])]
    given = [helper.make_tensor_value_info("out", 1, [1, 8 * 64 * 64])]
    graph = helper.make_graph(nodes, "classifier", taken, given, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)
