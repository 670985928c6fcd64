"""Label text files as Ultralytics, Roboflow and CVAT write them, read as COCO images, boxes and categories."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from objectives.tasks.detection.data.coco_json import Annotation, Category
from objectives.tasks.detection.data.data_yaml import DataYaml, read_data_yaml
from objectives.tasks.detection.data.image_files import ImageRecord, read_image
from search_spaces.errors import InputError
from search_spaces.reading import is_file, read_lines

#: What Ultralytics lets pass: exporters round shares to a little below 0 or above 1 (`verify_image_label`, 8.4).
_LOWEST, _HIGHEST = -0.01, 1.01
_FEWEST_POINTS = 3  # of a polygon

#: Class, centre x, centre y, width, height, shares of the image.
Row = tuple[int, float, float, float, float]


def read_yolo(
    path: Path, split: str = "val"
) -> tuple[tuple[ImageRecord, ...], tuple[Annotation, ...], tuple[Category, ...], tuple[str, ...]]:
    """Reads one split of a data yaml.

    Labels lie in ``labels`` folders next to ``images`` folders. A line is ``class x y width height``, the box's centre
    and size as shares of the image, perhaps with keypoints behind them; or ``class x1 y1 x2 y2 x3 y3 ...``, a polygon
    or an oriented box, whose bounding box is taken. A line that a file holds twice counts once, as in Ultralytics. An
    image without a label file is background.

    Returns:
        Images (without hashes), boxes, categories whose ids are the class indices, and what was left out, in words.

    Raises:
        InputError: A file is missing or of the wrong structure.
    """
    data = read_data_yaml(path)
    files = data.images(split)
    images: list[ImageRecord] = []
    boxes: list[Annotation] = []
    doubled = 0
    for number, file in enumerate(files, 1):
        image = read_image(file) if is_file(file) else None
        if image is None:
            kind = "cannot be read" if is_file(file) else "is missing"
            raise InputError(f"{path}: image {str(file)!r} {kind}; restore it or remove it from the set")
        height, width = image.shape[:2]
        images.append(ImageRecord(number, file, width, height))
        rows, more = _rows(_label_file(file), data)
        doubled += more
        boxes += [_annotation(len(boxes) + index, number, row, width, height) for index, row in enumerate(rows, 1)]
    if not boxes:
        raise InputError(
            f"{path}: no label for any of the {len(files)} images; labels are sought in {_label_file(files[0]).parent}"
        )
    notes = (f"{path}: label lines that are there twice and count once: {doubled}",) if doubled else ()
    return tuple(images), tuple(boxes), data.categories, notes


def _label_file(image: Path) -> Path:
    """The label file of an image: the last ``images`` folder of its path replaced by ``labels``."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _rows(path: Path, data: DataYaml) -> tuple[list[Row], int]:
    """Rows of a label file, each once, and how many were there again."""
    if not is_file(path):
        return [], 0
    found: dict[bytes, Row] = {}
    doubled = 0
    for number, line in enumerate(read_lines(path, "write it again in UTF-8"), 1):
        words = line.split()
        if not words:
            continue
        if data.keypoint_values and len(words) == 5 + data.keypoint_values:
            words = words[:5]
        values = _numbers(words)
        box = _box(values)
        if box is None or min(box) < _LOWEST or max(box) > _HIGHEST:
            raise InputError(
                f"{path}:{number}: {_short(line)!r} is neither 'class x y width height' nor "
                "'class x1 y1 x2 y2 x3 y3 ...' with shares of 1 (keypoints need kpt_shape in the yaml)"
            )
        if not 0 <= values[0] < len(data.categories) or values[0] != int(values[0]):
            count = len(data.categories)
            raise InputError(f"{path}:{number}: class {words[0]} is not among the {count} names of the yaml")
        key = np.array(values, np.float32).tobytes()  # rows are the same where they are in Ultralytics' precision
        doubled += key in found
        found.setdefault(key, (int(values[0]), box[0], box[1], max(box[2], 0.0), max(box[3], 0.0)))
    return list(found.values()), doubled


def _numbers(words: list[str]) -> list[float]:
    """Finite numbers; none where a word is not one."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _box(values: list[float]) -> tuple[float, float, float, float] | None:
    """Centre and size of a row's box; None where it holds neither a box nor a polygon."""
    if len(values) == 5:
        return values[1], values[2], values[3], values[4]
    xs, ys = values[1::2], values[2::2]
    if len(xs) != len(ys) or len(xs) < _FEWEST_POINTS:
        return None
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _short(line: str) -> str:
    return line if len(line) <= 80 else f"{line[:77]}..."


def _annotation(number: int, image: int, row: Row, width: int, height: int) -> Annotation:
    box_width, box_height = row[3] * width, row[4] * height
    x, y = row[1] * width - box_width / 2, row[2] * height - box_height / 2
    return Annotation(number, image, row[0], (x, y, box_width, box_height), box_width * box_height)
