"""Outlines and keypoints of labelled objects, as COCO's files write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycocotools import mask

from objectives.tasks.detection.data.masks import Rle, polygon
from search_spaces.errors import InputError

#: An outline: polygons, each x1, y1, x2, y2, ... in image pixels; or a mask.
Outline = tuple[tuple[float, ...], ...] | Rle

_LARGEST_SIDE = 2**15
_FEWEST = 6  # numbers of a polygon
_REMEDY = "give labels with outlines, or leave the metric out that needs masks"


def read_outline(item: Mapping[str, Any], where: str) -> Outline:
    """The ``segmentation`` of a COCO annotation: polygons, or runs, packed or not.

    Raises:
        InputError: It has none, or of another form.
    """
    found = item.get("segmentation")
    if not found:
        raise InputError(f"{where}: has no segmentation; {_REMEDY}")
    if isinstance(found, Mapping):
        return _runs(found, where)
    parts = found if isinstance(found, list) and all(isinstance(part, list) for part in found) else [found]
    if not all(_is_polygon(part) for part in parts):
        raise InputError(f"{where}: segmentation holds neither polygons of 3 or more points nor runs; {_REMEDY}")
    return tuple(tuple(float(value) for value in part) for part in parts)


def read_keypoints(item: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """The ``keypoints`` of a COCO annotation: x, y, visibility of each; all 0 where it has none.

    Raises:
        InputError: They are no triples of numbers.
    """
    found = item.get("keypoints") or []
    if not isinstance(found, list) or len(found) % 3 or not all(_is_number(value) for value in found):
        raise InputError(f"{where}: keypoints must be x, y, visibility of each; see the COCO data format")
    return tuple(float(value) for value in found)


def outline_mask(outline: Outline, height: int, width: int) -> Rle:
    """An outline as a mask on an image of that size.

    Raises:
        InputError: It is a mask of another size.
    """
    if not isinstance(outline, Rle):
        return polygon([list(part) for part in outline], height, width)
    if (outline.height, outline.width) != (height, width):
        raise InputError(
            f"a segmentation of {outline.height} x {outline.width} pixels is of an image of {height} x {width}; "
            "the labels belong to other images"
        )
    return outline


def _runs(found: Mapping[str, Any], where: str) -> Rle:
    size, counts = found.get("size"), found.get("counts")
    sides = size if isinstance(size, list) and len(size) == 2 else [0, 0]
    if not all(isinstance(side, int) and 0 < side < _LARGEST_SIDE for side in sides):
        raise InputError(f"{where}: segmentation has the size {size!r}, not height and width; {_REMEDY}")
    height, width = sides
    try:
        if isinstance(counts, list):
            if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
                raise ValueError
            packed = mask.frPyObjects({"size": sides, "counts": counts}, height, width)
        else:
            packed = {"size": sides, "counts": str(counts).encode("ascii")}
            mask.decode(packed)
    except Exception:  # pycocotools raises several classes
        raise InputError(f"{where}: segmentation holds runs that do not fill {height} x {width} pixels") from None
    return Rle(height, width, bytes(packed["counts"]))


def _is_polygon(part: object) -> bool:
    return isinstance(part, list) and len(part) >= _FEWEST and not len(part) % 2 and all(map(_is_number, part))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST_SIDE * 4
