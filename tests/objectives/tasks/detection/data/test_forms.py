"""One data set in three forms scores alike to the last digit; real images, slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import predict
from search_spaces.model_graph import ModelGraph


def write_forms(coco: Path, folder: Path) -> list[tuple[Path, Path | None]]:
    """Writes COCO labels without crowds and masks, which label files cannot hold, as a json, a folder and an export."""
    data = json.loads((coco / "instances_val.json").read_text())
    data["annotations"] = [
        {**box, "area": box["bbox"][2] * box["bbox"][3]} for box in data["annotations"] if not box["iscrowd"]
    ]
    (folder / "labels.json").write_text(json.dumps(data))
    ordered = sorted(data["categories"], key=lambda category: category["id"])
    index = {category["id"]: place for place, category in enumerate(ordered)}
    names = [category["name"] for category in ordered]
    for images, labels in (("folder/images/val", "folder/labels/val"), ("export/valid/images", "export/valid/labels")):
        for place in (images, labels):
            (folder / place).mkdir(parents=True)
        for image in data["images"]:
            file = Path(image["file_name"])
            (folder / images / file).symlink_to(coco / "val" / file)
            rows = []
            for box in (box for box in data["annotations"] if box["image_id"] == image["id"]):
                (x, y, w, h), width, height = box["bbox"], image["width"], image["height"]
                shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                rows.append(" ".join(map(repr, (index[box["category_id"]], *shares))))
            (folder / labels / file.with_suffix(".txt")).write_text("\n".join(rows))
    forms: dict[str, dict[str, object]] = {
        "folder": {"path": "../folder", "val": "images/val", "names": dict(enumerate(names))},
        "export": {"train": "../train/images", "val": "../valid/images", "nc": len(names), "names": names},
    }
    for name, content in forms.items():
        (folder / name / "data.yaml").write_text(yaml.safe_dump(content))
    return [(coco / "val", folder / "labels.json"), *((folder / name / "data.yaml", None) for name in forms)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_forms_of_one_set_score_alike(shared_data: Path, tmp_path: Path) -> None:
    model = shared_data / "models" / "yolov8n.onnx"
    contract = recognise(ModelGraph(model))
    figures = []
    with OnnxRuntimeRunner(model) as runner:
        for images, annotations in write_forms(shared_data / "coco", tmp_path):
            dataset = load_dataset(images, annotations)
            pixels = PreprocessedImages.build(dataset.images, contract.preprocessing, tmp_path / "cache")
            found = predict(runner, pixels, contract)
            figures.append(score(dataset, found, ["coco_box", "ultralytics_box"]).metrics)
    assert figures[0] == figures[1] == figures[2]
    assert 0.35 < figures[0]["map_50_95"] < 0.38
    # `yolo val` of Ultralytics 8.4.190: the same ONNX file and folder, imgsz=640 rect=False batch=1.
    assert figures[0]["map_50_95_ultralytics"] == pytest.approx(0.3587, abs=0.002)
    assert figures[0]["map_50_ultralytics"] == pytest.approx(0.5074, abs=0.002)
