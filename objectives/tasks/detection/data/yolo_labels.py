"""Reads an Ultralytics data yaml with its label text files as COCO images, boxes and categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from objectives.tasks.detection.data.coco_json import Annotation, Category
from objectives.tasks.detection.data.image_files import SUFFIXES, ImageRecord, read_image
from search_spaces.errors import InputError
from search_spaces.reading import is_file, is_folder, read_yaml


def read_data_yaml(
    path: Path,
) -> tuple[tuple[ImageRecord, ...], tuple[Annotation, ...], tuple[Category, ...]]:
    """Reads the ``val`` images of a data yaml.

    Labels lie in ``labels`` folders next to ``images`` folders; each line is ``class x y width height`` with
    the box centre and size as shares of the image. An image without a label file is background.

    Returns:
        Images (without hashes), boxes and categories, whose ids are the class indices.

    Raises:
        InputError: A file is missing or of the wrong structure.
    """
    data = read_yaml(path, "data yaml")
    categories = _categories(data.get("names"), path)
    folder = data.get("path") or "."
    if not isinstance(folder, str):
        raise InputError(f"{path}: 'path' must name the folder of the set")
    root = (path.parent / folder).resolve()
    entries = data.get("val")
    entries = entries if isinstance(entries, list) else [entries]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise InputError(f"{path}: 'val' must name an image folder or an image list")
    files = [file for entry in entries for file in _image_files(root, entry, path)]
    if not files:
        raise InputError(f"{path}: no image in {', '.join(map(str, entries))}; 'val' must name the evaluation images")
    images: list[ImageRecord] = []
    boxes: list[Annotation] = []
    for number, file in enumerate(files, 1):
        image = read_image(file)
        if image is None:
            raise InputError(f"{path}: image {file.name!r} cannot be read; restore it or remove it from the set")
        height, width = image.shape[:2]
        images.append(ImageRecord(number, file, width, height))
        for box in _label_lines(_label_file(file), len(categories)):
            boxes.append(_annotation(len(boxes) + 1, number, box, width, height))
    if not boxes:
        raise InputError(
            f"{path}: no label for any of the {len(files)} images; labels are sought in {_label_file(files[0]).parent}"
        )
    return tuple(images), tuple(boxes), categories


def _categories(names: object, path: Path) -> tuple[Category, ...]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names, key=str) != sorted(range(len(names)), key=str) or not names:
        raise InputError(f"{path}: 'names' must list the class names, or map 0, 1, ... to them")
    if not all(isinstance(name, (str, int, float)) for name in names.values()):
        raise InputError(f"{path}: 'names' must be texts")
    return tuple(Category(index, str(names[index])) for index in range(len(names)))


def _image_files(root: Path, entry: str, source: Path) -> list[Path]:
    path = root / entry
    if is_folder(path):
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if path.suffix == ".txt" and is_file(path):
        lines = [line.strip() for line in _lines(path)]
        return [path.parent / line for line in lines if line]
    raise InputError(f"{source}: 'val' {str(path)!r} is neither an image folder nor an image list")


def _label_file(image: Path) -> Path:
    """The label file of an image: the last ``images`` folder of its path replaced by ``labels``."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _label_lines(path: Path, classes: int) -> list[list[float]]:
    if not is_file(path):
        return []
    rows = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or not all(math.isfinite(value) and value >= 0 for value in row) or max(row[1:]) > 1:
            raise InputError(f"{path}:{number}: {line.strip()!r} is not 'class x y width height' with shares of 1")
        if row[0] != int(row[0]) or row[0] >= classes:
            raise InputError(f"{path}:{number}: class {line.split()[0]} is not among the {classes} names of the yaml")
        rows.append(row)
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; write it again in UTF-8") from None


def _annotation(number: int, image: int, row: Sequence[float], width: int, height: int) -> Annotation:
    box_width, box_height = row[3] * width, row[4] * height
    x, y = row[1] * width - box_width / 2, row[2] * height - box_height / 2
    return Annotation(number, image, int(row[0]), (x, y, box_width, box_height), box_width * box_height)
