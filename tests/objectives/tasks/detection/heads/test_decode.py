import numpy as np
import pytest
from tiny_detectors import build_detector, write_images

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.heads.end_to_end import EndToEndHead
from objectives.tasks.detection.heads.grid import anchor_points
from objectives.tasks.detection.heads.raw import RawHead
from objectives.tasks.detection.heads.suppression import suppress
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.model_graph import ModelGraph


def _plain_nms(boxes, scores, thresholds):
    """The definition, slowly: per class, take the best, drop what overlaps it."""
    rows = []
    for label, values in enumerate(scores):
        order = [i for i in np.argsort(-values, kind="stable") if values[i] > thresholds.confidence]
        while order:
            best, *rest = order
            rows.append([*boxes[best], values[best], label])
            order = []
            for i in rest:
                w, h = np.minimum(boxes[best, 2:], boxes[i, 2:]) - np.maximum(boxes[best, :2], boxes[i, :2])
                overlap = max(w, 0) * max(h, 0)
                union = np.prod(boxes[best, 2:] - boxes[best, :2]) + np.prod(boxes[i, 2:] - boxes[i, :2]) - overlap
                if overlap / union <= thresholds.iou:
                    order.append(i)
    rows.sort(key=lambda row: -row[4])
    return np.array(rows[: thresholds.max_detections], np.float32).reshape(-1, 6)


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_the_plain_definition(seed):
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (150, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (150, 2))], 1).astype(np.float32)
    scores = random.uniform(0, 1, (3, 150)).astype(np.float32)
    thresholds = Thresholds(confidence=0.2, iou=0.5, max_detections=90)
    assert suppress(boxes, scores, thresholds) == pytest.approx(_plain_nms(boxes, scores, thresholds))


def test_a_box_may_have_several_classes_and_candidates_are_bounded():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.5]], np.float32)
    scores = np.array([[0.9, 0.8], [0.3, 0.4]], np.float32)
    expected = np.array([[0.9, 0], [0.4, 1]], np.float32)
    assert suppress(boxes, scores, Thresholds())[:, 4:] == pytest.approx(expected)
    best = suppress(boxes, scores, Thresholds(max_candidates=1))
    assert best[:, 4].tolist() == pytest.approx([0.9])
    assert suppress(boxes, scores * 0, Thresholds()).shape == (0, 6)


def _outputs(tmp_path, layout, images, **options):
    path = build_detector(tmp_path / f"{layout}{len(options)}.onnx", layout, **options)
    with OnnxRuntimeRunner(path) as runner:
        return recognise(ModelGraph(path)), runner.infer(images)


@pytest.fixture
def images(tmp_path):
    paths = write_images(tmp_path / "images", 2)
    records = hash_files([ImageRecord(i, path) for i, path in enumerate(paths)], tmp_path)
    return PreprocessedImages.build(records, Preprocessing((64, 64)), tmp_path / "cache")


@pytest.mark.parametrize("transposed", [False, True])
def test_raw_equals_scores(tmp_path, images, transposed):
    batch = images.batch(0, 1)
    found = [
        contract.decode(outputs, Thresholds())[0]
        for contract, outputs in (
            _outputs(tmp_path, "scores", batch),
            _outputs(tmp_path, "raw", batch, transposed=transposed),
        )
    ]
    assert len(found[0]) > 5
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_end_to_end_is_the_dense_heads_best(tmp_path, images):
    contract, outputs = _outputs(tmp_path, "end_to_end", images.batch(0, 1))
    rows = contract.decode(outputs, Thresholds(confidence=0.01))[0]
    dense, channels = _outputs(tmp_path, "scores", images.batch(0, 1))
    everything = dense.decode(channels, Thresholds(confidence=0.01, iou=1.0))[0]
    assert len(rows) == min(20, len(everything))
    assert rows == pytest.approx(everything[: len(rows)], abs=1e-3)


def test_batches(tmp_path, images):
    contract, outputs = _outputs(tmp_path, "scores", images.batch(0, 2), dynamic_batch=True)
    both = contract.decode(outputs, Thresholds())
    assert len(both) == 2
    for index in range(2):
        single = contract.decode([outputs[0][index : index + 1]], Thresholds())[0]
        assert np.array_equal(both[index], single)


def test_rows_with_nan_are_left_out():
    contract = EndToEndHead("output0", Preprocessing((64, 64)), 3)
    rows = np.array([[[0, 0, 1, 1, 0.5, 0], [np.nan, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, np.nan, 1]]], np.float32)
    assert contract.decode([rows], Thresholds())[0].tolist() == [[0, 0, 1, 1, 0.5, 0]]


def test_one_bin_is_the_distance_itself():
    contract = RawHead("output0", Preprocessing((64, 64)), 1, reg_max=1, strides=(32,))
    boxes = contract.corners(np.full((4, 1), 0.25, np.float32), np.array([3]))
    assert boxes.tolist() == [[40, 40, 56, 56]]
    assert anchor_points((64, 64), (32,))[0].tolist() == [[16, 16], [48, 16], [16, 48], [48, 48]]
