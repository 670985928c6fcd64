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
    runs = counts if isinstance(counts, list) else unpacked(str(counts))
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise InputError(f"{where}: segmentation holds runs that do not fill {height} x {width} pixels; {_REMEDY}")
    packed = mask.frPyObjects({"size": sides, "counts": runs}, height, width)
    return Rle(height, width, bytes(packed["counts"]))


def unpacked(counts: str) -> list[int]:
    """Runs of COCO's packed form, so that nobody walks over those that do not fit; empty where the text is cut short.

    Each number is written by characters of 6 bits from ``0`` on, 5 of them its own, the lowest first, the sixth telling
    that more follow; from the fourth on a run is the difference to the last but one (``rleToString`` of the COCO API).
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else []


def _is_polygon(part: object) -> bool:
    return isinstance(part, list) and len(part) >= _FEWEST and not len(part) % 2 and all(map(_is_number, part))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST_SIDE * 4
