"""Label text files as Ultralytics, Roboflow and CVAT write them, read as COCO images, boxes and categories."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Row:
    """A label row, in shares of the image.

    Attributes:
        label: Index of the class.
        box: Centre x, centre y, width, height.
        polygon: x1, y1, x2, y2, ...; empty where the row is a box.
        keypoints: x, y, visibility of each.
    """

    label: int
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...] = ()
    keypoints: tuple[float, ...] = ()


def read_yolo(
    path: Path, split: str = "val", details: Set[str] = frozenset()
) -> tuple[tuple[ImageRecord, ...], tuple[Annotation, ...], tuple[Category, ...], tuple[str, ...]]:
    """Reads one split of a data yaml.

    Labels lie in ``labels`` folders next to ``images`` folders. A line is ``class x y width height``, the box's centre
    and size as shares of the image, perhaps with keypoints behind them; or ``class x1 y1 x2 y2 x3 y3 ...``, a polygon
    or an oriented box, whose bounding box is taken. A line that a file holds twice counts once, as in Ultralytics. An
    image without a label file is background.

    Args:
        path: The yaml.
        split: ``train``, ``val`` or ``test``.
        details: ``masks``, ``keypoints``: what is read of every object besides its box.

    Returns:
        Images (without hashes), boxes, categories whose ids are the class indices, and what was left out, in words.

    Raises:
        InputError: A file is missing or of the wrong structure.
    """
    data = read_data_yaml(path)
    files = data.images(split)
    images: list[ImageRecord] = []
    boxes: list[Annotation] = []
    doubled = mixed = 0
    for number, file in enumerate(files, 1):
        image = read_image(file) if is_file(file) else None
        if image is None:
            kind = "cannot be read" if is_file(file) else "is missing"
            raise InputError(f"{path}: image {str(file)!r} {kind}; restore it or remove it from the set")
        height, width = image.shape[:2]
        images.append(ImageRecord(number, file, width, height))
        rows, more = _rows(_label_file(file), data)
        doubled += more
        mixed += len({bool(row.polygon) for row in rows}) > 1
        if "masks" in details and not all(row.polygon for row in rows):
            raise InputError(
                f"{_label_file(file)}: holds boxes without an outline; give polygons, or leave the metric out that "
                "needs masks"
            )
        boxes += [
            _annotation(len(boxes) + index, number, row, (width, height), details) for index, row in enumerate(rows, 1)
        ]
    if not boxes:
        raise InputError(
            f"{path}: no label for any of the {len(files)} images; labels are sought in {_label_file(files[0]).parent}"
        )
    told = {
        f"{path}: label lines that are there twice and count once: {doubled}": doubled,
        f"{path}: label files that hold boxes and polygons: {mixed}; they count here, and Ultralytics leaves "
        "their images out": mixed,
    }
    return tuple(images), tuple(boxes), data.categories, tuple(note for note, count in told.items() if count)


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
        points: list[float] = []
        if data.keypoint_values and len(words) == 5 + data.keypoint_values:
            words, points = words[:5], _numbers(words[5:])
        values = _numbers(words)
        box = _box(values)
        if box is None or min(box) < _LOWEST or max(box) > _HIGHEST:
            raise InputError(
                f"{path}:{number}: {_shown(line, values)} is neither 'class x y width height' nor "
                "'class x1 y1 x2 y2 x3 y3 ...' with shares of 1 (keypoints need kpt_shape in the yaml)"
            )
        if not 0 <= values[0] < len(data.categories) or values[0] != int(values[0]):
            count = len(data.categories)
            raise InputError(f"{path}:{number}: class {words[0]} is not among the {count} names of the yaml")
        key = np.array(
            [*values, *points], np.float32
        ).tobytes()  # rows are the same where they are in Ultralytics' precision
        doubled += key in found
        row = Row(
            int(values[0]),
            (box[0], box[1], max(box[2], 0.0), max(box[3], 0.0)),
            tuple(values[1:]) if len(values) > 5 else (),
            _keypoints(points, data.keypoint_dimensions),
        )
        found.setdefault(key, row)
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


def _shown(line: str, values: list[float]) -> str:
    """A line for an error; what holds other than numbers may come from any file, by a link for instance."""
    if not values:
        return "the line, which holds other than numbers,"
    return repr(line if len(line) <= 80 else f"{line[:77]}...")


def _keypoints(values: list[float], dimensions: int) -> tuple[float, ...]:
    """x, y, visibility of each; of pairs those count that are not negative, as in Ultralytics."""
    if dimensions != 2:
        return tuple(values)
    pairs = zip(values[::2], values[1::2], strict=True)
    return tuple(number for x, y in pairs for number in (x, y, 2.0 if x >= 0 and y >= 0 else 0.0))


def _annotation(number: int, image: int, row: Row, size: tuple[int, int], details: Set[str]) -> Annotation:
    width, height = size
    box_width, box_height = row.box[2] * width, row.box[3] * height
    x, y = row.box[0] * width - box_width / 2, row.box[1] * height - box_height / 2
    bbox, area = (x, y, box_width, box_height), box_width * box_height
    outline = keypoints = None
    if "masks" in details:
        outline = (tuple(value * size[index % 2] for index, value in enumerate(row.polygon)),)
    if "keypoints" in details:
        scale = (width, height, 1)
        keypoints = tuple(value * scale[index % 3] for index, value in enumerate(row.keypoints))
    return Annotation(number, image, row.label, bbox, area, outline=outline, keypoints=keypoints)
