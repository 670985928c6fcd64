"""Reads and checks the structure of a COCO annotation file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from objectives.tasks.detection.data.image_files import ImageRecord, located
from objectives.tasks.detection.data.masks import Rle
from objectives.tasks.detection.data.outlines import Outline, read_keypoints, read_outline
from search_spaces.errors import InputError
from search_spaces.reading import is_file

_LARGEST = 2**53  # ids, pixels: all that NumPy and pycocotools hold without a change


@dataclass(frozen=True)
class Annotation:
    """One labelled box.

    Attributes:
        id: Unique.
        image_id: Its image.
        category_id: Its category.
        bbox: x, y, width, height in image pixels.
        area: Pixels; decides small, medium or large.
        iscrowd: Whether it marks a crowd (matches are then neither right nor wrong).
        outline: What of the image it covers; None where nobody asked for masks.
        keypoints: x, y in image pixels and visibility of each; None where nobody asked for them.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool = False
    outline: Outline | None = None
    keypoints: tuple[float, ...] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it, as JSON can write it."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        if isinstance(self.outline, Rle):
            known["outline"] = {**self.outline.coco, "counts": self.outline.counts.decode("ascii")}
        return known


@dataclass(frozen=True)
class Category:
    """One category of the labels.

    Attributes:
        id: As in the annotation file (COCO's ids have gaps).
        name: Its name.
        groups: Whether it may be no class, but what others are grouped under, or the background.
    """

    id: int
    name: str
    groups: bool = False


def read_coco(
    data: Any, folder: Path, source: Path, details: Set[str] = frozenset()
) -> tuple[tuple[ImageRecord, ...], tuple[Annotation, ...], tuple[Category, ...]]:
    """Checks a parsed COCO file.

    Args:
        data: The parsed JSON.
        folder: Where the images are.
        source: Where the JSON came from, for messages.
        details: ``masks``, ``keypoints``: what is read of every annotation besides its box.

    Returns:
        Images (without hashes), boxes and categories.

    Raises:
        InputError: Wrong structure, doubled ids, bad boxes, unknown references, no boxes at all.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{source}: not a COCO annotation file: the top level is not an object")
    lists = []
    for key in ("images", "annotations", "categories"):
        value = data.get(key)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise InputError(f"{source}: not a COCO annotation file: {key!r} is not a list of objects")
        lists.append(value)
    numbers = _numbers(lists[0], f"{source}: image", f"{source}: images")
    images = tuple(
        _image(item, number, index, folder, source)
        for index, (number, item) in enumerate(zip(numbers.values(), lists[0], strict=True))
    )
    listed = list({(str(item.get("id")), str(item.get("name", ""))): item for item in lists[2]}.values())
    named = _numbers(listed, f"{source}: category", f"{source}: categories")
    categories = _categories(listed, tuple(named.values()))
    _unique([str(image.path) for image in images], f"{source}: file_name")
    if not images:
        raise InputError(f"{source}: lists no image; give a COCO file of the evaluation images")
    if not lists[1]:
        raise InputError(f"{source}: has no annotation; mAP cannot be scored without labelled boxes")
    ids = _numbers(lists[1], f"{source}: annotation", f"{source}: annotations")
    boxes = tuple(
        _annotation(item, number, numbers, named, source, details)
        for number, item in zip(ids.values(), lists[1], strict=True)
    )
    return images, boxes, categories


def _categories(items: Sequence[Mapping[str, Any]], ids: Sequence[int]) -> tuple[Category, ...]:
    """Of Roboflow's files category 0 is the project, the supercategory of all; others write the background there."""
    names = [str(item.get("name") or "") for item in items]
    above = {
        str(item.get("supercategory") or "none") for item in items if item.get("supercategory") != item.get("name")
    }
    grouped = above - {"none"}
    return tuple(
        Category(number, name, name in grouped if grouped else number == 0)
        for number, name in zip(ids, names, strict=True)
    )


def _image(item: Mapping[str, Any], number: int, index: int, folder: Path, source: Path) -> ImageRecord:
    where = f"{source}: images[{index}]"
    name = item.get("file_name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: file_name is missing; give a path relative to the image folder")
    path = _inside(folder, name, where)
    size = [_whole(item.get(key) or 0) for key in ("width", "height")]
    if not all(isinstance(value, int) and 0 <= value < _LARGEST for value in size):
        raise InputError(f"{where}: width {_shown(size[0])} and height {_shown(size[1])} must be whole pixels")
    return ImageRecord(number, path, size[0], size[1])


def _inside(folder: Path, name: str, where: str) -> Path:
    """The file of that name in the image folder, never one outside of it."""
    plain = PureWindowsPath(name)  # it takes both kinds of separators
    absolute = PurePosixPath(name).is_absolute() or plain.is_absolute() or bool(plain.drive)
    if not absolute and ".." not in plain.parts:
        return located(folder, name, moved=True)
    here = folder / plain.name  # labelling tools write where the image was on the machine of the one who labelled it
    if plain.name not in ("", "..") and is_file(here):
        return here
    if absolute:
        raise InputError(f"{where}: file_name {name!r} is absolute; it must lie inside the image folder")
    raise InputError(f"{where}: file_name {name!r} leaves the image folder; remove '..'")


def _annotation(
    item: Mapping[str, Any],
    number: int,
    images: Mapping[str, int],
    categories: Mapping[str, int],
    source: Path,
    details: Set[str],
) -> Annotation:
    where = f"{source}: annotation {number}"
    image, category = _identifier(item, "image_id", where), _identifier(item, "category_id", where)
    if image not in images:
        raise InputError(f"{where}: image_id {image} is not among the images; the labels are of other images")
    if category not in categories:
        raise InputError(f"{where}: category_id {category} is not among the categories")
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise InputError(f"{where}: bbox {_box_text(box)} must be 4 finite numbers: x, y, width, height")
    if box[2] < 0 or box[3] < 0:
        raise InputError(f"{where}: bbox {list(box)} has a negative width or height; it must be x, y, width, height")
    area = box[2] * box[3] if item.get("area") is None else item["area"]
    if not _is_finite(area) or area < 0:
        _bad(where, "area", area)
    crowd = item.get("iscrowd") or 0
    if crowd not in (0, 1):
        _bad(where, "iscrowd", crowd)
    x, y, width, height = (float(value) for value in box)
    return Annotation(
        number,
        images[image],
        categories[category],
        (x, y, width, height),
        float(area),
        bool(crowd),
        read_outline(item, where) if "masks" in details else None,
        read_keypoints(item, where) if "keypoints" in details else None,
    )


def _numbers(items: Sequence[Mapping[str, Any]], what: str, where: str) -> dict[str, int]:
    """Numbers of items by the text of their ids: the ids themselves, or their places where some are no numbers.

    Raises:
        InputError: An id is missing, of another kind, or there twice.
    """
    texts = [_identifier(item, "id", f"{where}[{index}]") for index, item in enumerate(items)]
    _unique(texts, f"{what} id")
    whole = all(isinstance(_whole(item["id"]), int) for item in items)
    return {text: int(text) if whole else index for index, text in enumerate(texts, 1)}


def _identifier(item: Mapping[str, Any], key: str, where: str) -> str:
    """An id as text: a whole number, which some tools write as 1.0, or a name."""
    value = _whole(item.get(key))
    if isinstance(value, str) and value:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        _bad(where, key, value)
    return str(value)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bad(where: str, key: str, value: object) -> NoReturn:
    raise InputError(f"{where}: {key} is {_shown(value)}; see the COCO data format")


def _box_text(box: object) -> str:
    return f"[{', '.join(map(_shown, box))}]" if isinstance(box, list) else repr(box)


def _shown(value: object) -> str:
    """A value as a message shows it; a whole number of thousands of digits has no text."""
    return "a huge number" if isinstance(value, int) and abs(value) >= _LARGEST else repr(value)


def _is_finite(value: object) -> bool:
    """Whether a value is a number that a box may have; JSON's whole numbers know no bound."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -_LARGEST < value < _LARGEST


def _unique(values: Sequence[object], what: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{what} {value} occurs more than once; each must be there once")
        seen.add(value)
