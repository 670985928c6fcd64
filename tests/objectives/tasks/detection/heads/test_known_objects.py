"""Heads read known objects to the pixel, masks and keypoints included, on images that are placed differently."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from known_boxes import SIZE, best_rows, constant_model, dense_rows

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.data.letterbox import Placement
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import IMAGENET_MEAN, Fit
from objectives.tasks.detection.detector import Detector, recognise
from objectives.tasks.detection.heads.rotated import box_corners
from objectives.tasks.detection.metrics.scoring import needs, score
from objectives.tasks.detection.predict import predict
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

NAMES = {0: "apple", 1: "boat", 2: "cat"}
BOXES = np.array([[8, 16, 32, 40], [20, 24, 60, 48], [36, 16, 56, 30]], np.float32)  # inside both images
LABELS = [2, 0, 1]
POINTS = np.array([[[x1, y1], [x2, y2], [x1, y2], [(x1 + x2) / 2, y1]] for x1, y1, x2, y2 in BOXES], np.float32)
TURNED = np.array([[24, 28, 20, 10, 0.5], [44, 32, 24, 8, -0.3], [20, 40, 12, 6, 1.2]], np.float32)


def _outlines() -> list[list[float]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2] for x1, y1, x2, y2 in BOXES.tolist()]


def _dataset(folder: Path, detector: Detector, outlines: list[list[float]], points: np.ndarray) -> CocoDataset:
    """Two images whose labels are the known objects, mapped to where the image was."""
    images, annotations = [], []
    (folder / "images").mkdir()
    for number, (width, height) in enumerate([(64, 64), (128, 96)]):
        name = f"{number}.png"
        cv2.imwrite(str(folder / "images" / name), np.full((height, width, 3), 10 + number, np.uint8))
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        place = Placement.of(width, height, detector.preprocessing)
        for index, outline in enumerate(outlines):
            corners = place.points_to_image(np.array(outline, np.float32).reshape(-1, 2))
            low, high = corners.min(0).tolist(), corners.max(0).tolist()
            keypoints = place.points_to_image(points[index])
            box = [*low, high[0] - low[0], high[1] - low[1]]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": LABELS[index],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "segmentation": [corners.ravel().tolist()],
                    "keypoints": np.column_stack([keypoints, np.full(len(keypoints), 2)]).ravel().tolist(),
                }
            )
    categories = [{"id": index, "name": name} for index, name in NAMES.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(data))
    return load_dataset(folder / "images", folder / "labels.json", details={"masks", "keypoints"})


def _scored(path: Path, metrics: list[str], outlines: list[list[float]] | None = None, **options) -> dict[str, float]:
    detector = recognise(ModelGraph(path), **options).giving(needs(metrics), "the test")
    dataset = _dataset(path.parent, detector, outlines or _outlines(), POINTS)
    images = PreprocessedImages.build(dataset.images, detector.preprocessing, path.parent / "cache")
    with OnnxRuntimeRunner(path) as runner:
        found = predict(runner, images, detector)
    assert [len(rows) for rows in found.detections] == [3, 3]
    return dict(score(dataset, found, metrics).metrics)


def _metadata(task: str, **more: str) -> dict[str, str]:
    return {"names": str(NAMES), "task": task, **more}


@pytest.mark.parametrize("selected", [False, True], ids=["dense", "selected"])
def test_masks(tmp_path: Path, selected: bool) -> None:
    basis = np.stack([np.full((16, 16), 1.0), np.full((16, 16), -1.0)])[None].astype(np.float32)
    extra = np.array([[3, 1], [2, 0], [5, 4]], np.float32)  # masks that fill their boxes
    rows = best_rows(BOXES, LABELS, extra) if selected else dense_rows(BOXES, LABELS, 3, extra)
    path = constant_model(tmp_path / "m.onnx", {"output0": rows, "output1": basis}, metadata=_metadata("segment"))
    found = _scored(path, ["coco_box", "coco_segm"])
    assert found["map_50_95"] == pytest.approx(1) and found["map_50_95_mask"] == pytest.approx(1)


def test_a_mask_that_is_half_its_box_is_no_whole_one(tmp_path: Path) -> None:
    basis = np.where(np.arange(16) < 7, 1.0, -1.0)[None, None, None].repeat(16, 2).astype(np.float32)
    rows = dense_rows(BOXES, LABELS, 3, np.ones((3, 1), np.float32))
    path = constant_model(
        tmp_path / "m.onnx", {"output0": rows, "output1": np.concatenate([basis, basis], 1)},
        metadata=_metadata("segment"),
    )  # fmt: skip
    with pytest.raises(InputError, match="output0 has 2 classes but there are 3 class names"):
        recognise(ModelGraph(path))  # two planes, one coefficient
    rows = dense_rows(BOXES, LABELS, 3, np.array([[0.5, 0.5]] * 3, np.float32))
    path = constant_model(
        tmp_path / "n.onnx", {"output0": rows, "output1": np.concatenate([basis, basis], 1)},
        metadata=_metadata("segment"),
    )  # fmt: skip
    found = _scored(path, ["coco_box", "coco_segm"])
    assert found["map_50_95"] == pytest.approx(1)
    assert 0 < found["map_50_95_mask"] < 0.5  # only the first box lies left of x = 28 almost wholly


@pytest.mark.parametrize("selected", [False, True], ids=["dense", "selected"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_keypoints(tmp_path: Path, selected: bool, dimensions: int) -> None:
    shown = np.concatenate([POINTS, np.ones((3, 4, 1), np.float32)], 2)[:, :, :dimensions]
    extra = shown.reshape(3, -1)
    rows = best_rows(BOXES, LABELS, extra) if selected else dense_rows(BOXES, LABELS, 3, extra)
    metadata = _metadata("pose", kpt_shape=str([4, dimensions]))
    found = _scored(constant_model(tmp_path / "m.onnx", {"output0": rows}, metadata=metadata),
                    ["coco_box", "coco_keypoints"])  # fmt: skip
    assert found["map_50_95"] == pytest.approx(1) and found["map_50_95_keypoints"] == pytest.approx(1)


@pytest.mark.parametrize("selected", [False, True], ids=["dense", "selected"])
def test_oriented_boxes(tmp_path: Path, selected: bool) -> None:
    outlines = [corners.ravel().tolist() for corners in box_corners(TURNED)]
    if selected:
        rows = best_rows(TURNED[:, :4], LABELS, TURNED[:, 4:])
    else:
        halves = np.concatenate([TURNED[:, :2] - TURNED[:, 2:4] / 2, TURNED[:, :2] + TURNED[:, 2:4] / 2], 1)
        rows = dense_rows(halves, LABELS, 3, TURNED[:, 4:])
    path = constant_model(tmp_path / "m.onnx", {"output0": rows}, metadata=_metadata("obb"))
    found = _scored(path, ["coco_box", "coco_segm"], outlines)
    assert found["map_50_95"] == pytest.approx(1) and found["map_50_95_mask"] == pytest.approx(1)


def _queries(columns: int, sigmoid: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits and centre-form shares of the known boxes, and queries that find nothing."""
    boxes = np.full((1, 12, 4), 0.5, np.float32)
    logits = np.full((1, 12, columns), -9, np.float32)
    if not sigmoid:
        logits[0, :, -1] = 9
    for index, (x1, y1, x2, y2) in enumerate(BOXES.tolist()):
        boxes[0, index] = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / SIZE[0]
        logits[0, index, LABELS[index]] = 12 - index
    return logits, boxes


@pytest.mark.parametrize(
    ("head", "columns", "marks", "linear"),
    [
        ("detr", 4, (), True),
        ("deformable_detr", 3, ("GridSample",), True),
        ("deformable_detr", 3, (), False),  # the reference of a Conditional DETR, folded
        ("deformable_detr", 3, ("GridSample", "TopK"), False),
        ("dfine", 3, ("TopK", "GridSample"), False),
    ],
)
def test_queries(tmp_path: Path, head: str, columns: int, marks: tuple[str, ...], linear: bool) -> None:
    logits, boxes = _queries(columns, head != "detr")
    path = constant_model(
        tmp_path / "m.onnx",
        {"logits": logits, "pred_boxes": boxes},
        linear=frozenset({"pred_boxes"} if linear else ()),
        extra_nodes=marks,
    )
    detector = recognise(ModelGraph(path), classes=list(NAMES.values()))
    assert detector.name == head and detector.preprocessing.fit is Fit.STRETCHED
    assert (detector.preprocessing.mean == IMAGENET_MEAN) == (head != "dfine")
    assert "--head" in detector.note
    assert _scored(path, ["coco_box"], classes=list(NAMES.values()))["map_50_95"] == pytest.approx(1)


def test_an_asked_head_says_what_the_graph_cannot(tmp_path: Path) -> None:
    logits, boxes = _queries(3, True)
    path = constant_model(tmp_path / "m.onnx", {"logits": logits, "pred_boxes": boxes})
    assert recognise(ModelGraph(path)).name == "deformable_detr"
    found = recognise(ModelGraph(path), head="dfine")
    assert found.class_count == 3 and not any(found.preprocessing.mean)
    with pytest.raises(InputError, match=r"logits has 2 classes but there are 3 class names"):
        recognise(ModelGraph(path), head="detr", classes=list(NAMES.values()))


def test_a_vision_transformer_may_have_a_class_without_a_name(tmp_path: Path) -> None:
    logits, boxes = _queries(4, True)
    path = constant_model(
        tmp_path / "m.onnx", {"labels": logits, "dets": boxes}, extra_nodes=("TopK", "GridSample"), kernel=16
    )
    found = recognise(ModelGraph(path), classes=list(NAMES.values()))
    assert (found.name, found.class_count, found.head.outputs) == ("deformable_detr", 3, ("labels", "dets"))


def test_cocos_91_ids_have_names(tmp_path: Path) -> None:
    logits, boxes = _queries(92, False)
    path = constant_model(
        tmp_path / "m.onnx", {"logits": logits, "pred_boxes": boxes}, linear=frozenset({"pred_boxes"})
    )
    found = recognise(ModelGraph(path))
    assert (found.class_count, found.classes[1], found.classes[90]) == (91, "person", "toothbrush")


@pytest.mark.parametrize("single", [False, True], ids=["batch", "single"])
@pytest.mark.parametrize("named", [False, True], ids=["background", "classes"])
def test_boxes_labels_scores(tmp_path: Path, single: bool, named: bool) -> None:
    names = list(NAMES.values()) if named else ["__background__", *NAMES.values()]
    outputs = {"boxes": BOXES, "labels": np.array(LABELS) + 1, "scores": np.array([0.9, 0.8, 0.7], np.float32)}
    path = constant_model(tmp_path / "m.onnx", outputs, single=single)
    detector = recognise(ModelGraph(path), classes=names)
    assert (detector.name, detector.classes, detector.head.first) == ("torchvision", tuple(NAMES.values()), 1)
    assert ModelGraph(path).input_shape == (1, 3, *SIZE)
    assert _scored(path, ["coco_box"], classes=names)["map_50_95"] == pytest.approx(1)


def test_masks_and_keypoints_of_a_torchvision_model(tmp_path: Path) -> None:
    masks = np.zeros((3, 1, *SIZE), np.float32)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.astype(int), strict=True):
        mask[0, y1:y2, x1:x2] = 0.9
    outputs = {
        "boxes": BOXES,
        "labels": np.array(LABELS) + 1,
        "scores": np.array([0.9, 0.8, 0.7], np.float32),
        "masks": masks,
        "keypoints": np.concatenate([POINTS, np.ones((3, 4, 1), np.float32)], 2),
        "keypoints_scores": np.ones((3, 4), np.float32),
    }
    path = constant_model(tmp_path / "m.onnx", outputs, single=True)
    found = _scored(path, ["coco_box", "coco_segm", "coco_keypoints"], classes=list(NAMES.values()))
    assert {name: found[name] for name in found if "50_95" in name} == pytest.approx(
        {"map_50_95": 1, "map_50_95_mask": 1, "map_50_95_keypoints": 1}
    )


def test_what_a_head_does_not_give_is_told(tmp_path: Path) -> None:
    rows = dense_rows(BOXES, LABELS, 3, np.ones((3, 1), np.float32))
    path = constant_model(tmp_path / "m.onnx", {"output0": rows}, metadata=_metadata("obb"))
    with pytest.raises(
        InputError, match=r"--metric coco_keypoints: needs keypoints, which .* 'oriented' does not give"
    ):
        recognise(ModelGraph(path)).giving(needs(["coco_keypoints"]), "--metric coco_keypoints")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("segment", "is not a detector of a known head"),
        ("obb", "output0 has 111 classes but there are 80 class names"),
        ("classify", "is not a detector of a known head"),
    ],
)
def test_further_values_are_never_classes(tmp_path: Path, task: str, message: str) -> None:
    """80 classes and 32 further channels are no 112 classes, nor 80 classes of 9 bins, nor anything else."""
    names = {index: f"c{index}" for index in range(80)}
    rows = np.zeros((1, 116, 84), np.float32)
    path = constant_model(tmp_path / "m.onnx", {"output0": rows}, metadata={"names": str(names), "task": task})
    with pytest.raises(InputError, match=message):
        recognise(ModelGraph(path))
