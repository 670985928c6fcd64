"""A tiny detector beside its images as Ultralytics lays them out."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tiny_detectors import build_detector, write_dataset


def write_tiny_yolo(folder: Path, images: int = 10, train: int = 4) -> Path:
    """Writes ``best.onnx``, images, label texts and ``data.yaml``, whose first images are the ``train`` split.

    Args:
        folder: Where all of it goes; exists.
        images: How many.
        train: How many of them are not for evaluation.

    Returns:
        The data yaml.
    """
    write_dataset(folder, build_detector(folder / "best.onnx"), images)
    (folder / "labels").mkdir()
    coco = json.loads((folder / "labels.json").read_text())
    number = {category["id"]: index for index, category in enumerate(coco["categories"])}
    for image in coco["images"]:
        lines = []
        for box in (found for found in coco["annotations"] if found["image_id"] == image["id"]):
            x, y, width, height = box["bbox"]
            shares = [(x + width / 2) / image["width"], (y + height / 2) / image["height"]]
            shares += [width / image["width"], height / image["height"]]
            lines.append(" ".join(map(str, [number[box["category_id"]], *shares])))
        (folder / "labels" / f"{Path(image['file_name']).stem}.txt").write_text("\n".join(lines))
    files = sorted(file.name for file in (folder / "images").iterdir())
    for split, chosen in (("train", files[:train]), ("val", files[train:])):
        (folder / f"{split}.txt").write_text("".join(f"images/{name}\n" for name in chosen))
    names = [category["name"] for category in coco["categories"]]
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "train.txt", "val": "val.txt", "names": names}))
    return path
