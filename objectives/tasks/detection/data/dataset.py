"""CocoDataset: evaluation images with their boxes, checked by name before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from objectives.tasks.detection.data.class_match import ClassMatch, match_classes
from objectives.tasks.detection.data.coco_json import Annotation, Category, read_coco
from objectives.tasks.detection.data.data_yaml import SPLITS, YAML_SUFFIXES
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files, images_in
from objectives.tasks.detection.data.yolo_labels import read_yolo
from search_spaces.errors import InputError, nearest
from search_spaces.reading import is_file, is_folder, read_json

__all__ = ["Annotation", "Category", "CocoDataset", "ImageRecord", "has_labels", "load_dataset", "load_unlabelled"]

_EXPORTED = ("_annotations.coco.json", "data.yaml")  # what Roboflow puts into the folder of the images, or above


@dataclass(frozen=True)
class CocoDataset:
    """Images and their boxes.

    Attributes:
        images: In the order of the annotation file.
        annotations: Boxes of these images; empty where there are no labels.
        categories: All categories of the annotation file; empty where there are no labels.
        source: The annotation file, the data yaml, or the folder of images without labels.
        notes: What was joined or left out, a line each, for people.
    """

    images: tuple[ImageRecord, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Whether there are labels to score by."""
        return bool(self.categories)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Ids of the categories that have at least one box here, sorted."""
        return tuple(sorted({annotation.category_id for annotation in self.annotations}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over image contents, boxes and categories, hex; independent of paths."""
        data = {
            "images": [[image.id, image.sha256] for image in self.images],
            "annotations": [annotation.facts for annotation in self.annotations],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def subset(self, n: int | None) -> CocoDataset:
        """Returns `n` of the images, always the same ones: those with the smallest content hashes.

        Subsets are nested; the order of the dataset is kept. None, or at least as many as there are, is all.

        Raises:
            InputError: `n` is not positive.
        """
        if n is None or n >= len(self.images):
            return self
        if n < 1:
            raise InputError(f"{n} images cannot be scored; ask for at least 1 (the set has {len(self.images)})")
        chosen = sorted(self.images, key=lambda image: (image.sha256, image.id))[:n]
        return self.only({image.id for image in chosen})

    def without(self, other: CocoDataset) -> CocoDataset | None:
        """Returns the images that `other` lacks; None where there are none."""
        rest = {image.id for image in self.images} - {image.id for image in other.images}
        return self.only(rest) if rest else None

    def only(self, ids: set[int]) -> CocoDataset:
        """Returns the images of those ids."""
        return replace(
            self,
            images=tuple(image for image in self.images if image.id in ids),
            annotations=tuple(annotation for annotation in self.annotations if annotation.image_id in ids),
        )

    def matched(self, classes: Sequence[str], class_count: int) -> CocoDataset:
        """Returns the labels as a model of those classes is scored on them.

        Categories that are one class of the model are joined, and `notes` says what a person should know of it.

        Raises:
            InputError: A labelled category is not a class of the model, or counts disagree.
        """
        if not self.labelled:
            return self
        found = self._match(classes, class_count)
        if not found.joined and set(found.notes) <= set(self.notes):
            return self
        boxes = tuple(
            replace(box, category_id=found.joined[box.category_id]) if box.category_id in found.joined else box
            for box in self.annotations
        )
        return replace(self, annotations=boxes, notes=tuple(dict.fromkeys(self.notes + found.notes)))

    def category_of_class(self, classes: Sequence[str], class_count: int) -> tuple[int | None, ...]:
        """Maps class indices of a model to category ids of the labels, as `match_classes` does.

        Args:
            classes: Class names by index; may be empty.
            class_count: Number of classes; 0 where unknown.

        Returns:
            A category id per class index; None for classes without a labelled object.

        Raises:
            InputError: A labelled category is not a class of the model, or counts disagree.
        """
        return self._match(classes, class_count).categories

    def _match(self, classes: Sequence[str], class_count: int) -> ClassMatch:
        return match_classes(self.categories, set(self.category_ids), classes, class_count, self.source)


def load_dataset(
    images: Path | str,
    annotations: Path | str | None = None,
    split: str = "val",
    details: Set[str] = frozenset(),
) -> CocoDataset:
    """Reads an evaluation set and checks it.

    Args:
        images: Folder of the images; or a data yaml as Ultralytics and Roboflow write it.
        annotations: COCO json, or a data yaml, where `images` then is not used; None where `images` is a data yaml, or
            a folder that holds its labels under the name of an export.
        split: Which images of a data yaml: ``train``, ``val`` or ``test``.
        details: ``masks``, ``keypoints``: what is read of every object besides its box.

    Raises:
        InputError: A file is missing, of the wrong structure or contradicts itself.
    """
    folder = Path(images)
    if annotations is None and is_folder(folder):
        annotations = next((folder / name for name in _EXPORTED if is_file(folder / name)), None)
    source = Path(annotations) if annotations is not None else folder
    if source != folder and folder.suffix.lower() in YAML_SUFFIXES:
        raise InputError(f"{folder}: a data yaml names its labels itself; leave {source} out, or give an image folder")
    if split not in SPLITS:
        raise InputError(f"split {split!r}: is not one of {', '.join(SPLITS)}{nearest(split, SPLITS)}")
    if source.suffix.lower() in YAML_SUFFIXES:
        drafts, boxes, categories, notes = read_yolo(source, split, details)
        return CocoDataset(hash_files(drafts, source), boxes, categories, source, (*notes, *_remarks(boxes, source)))
    if annotations is None:
        raise InputError(
            f"{folder}: give its labels: a COCO json as --annotations (in a study: data.annotations), or a data yaml "
            "in place of the folder; without labels there is no mAP, but agreement with the unquantized model: "
            "--reference (in a study: objectives: [agreement, ...])"
        )
    if not is_folder(folder):
        raise InputError(f"data.images {str(folder)!r}: no such folder; give the folder of the evaluation images")
    drafts, boxes, categories = read_coco(_read_json(source), folder, source, details)
    return CocoDataset(hash_files(drafts, source), boxes, categories, source, _remarks(boxes, source))


def has_labels(folder: Path) -> bool:
    """Whether a folder of images holds its labels under the name of an export."""
    return any(is_file(folder / name) for name in _EXPORTED)


def load_unlabelled(folder: Path | str) -> CocoDataset:
    """Reads the images of a folder, and of the folders in it, as an evaluation set without labels.

    Raises:
        InputError: There is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise InputError(f"data.images {str(folder)!r}: no such folder; give the folder of the evaluation images")
    drafts = [ImageRecord(number, path) for number, path in enumerate(images_in(folder), 1)]
    if not drafts:
        raise InputError(f"data.images {str(folder)!r}: holds no image; give the folder of the evaluation images")
    return CocoDataset(hash_files(drafts, folder), (), (), folder)


def _remarks(boxes: Sequence[Annotation], source: Path) -> tuple[str, ...]:
    """What lowers every score and cannot be told to be wrong."""
    counted = [box for box in boxes if not box.iscrowd]
    doubled = len(counted) - len({(box.image_id, box.category_id, box.bbox) for box in counted})
    flat = sum(min(box.bbox[2:]) <= 0 for box in counted)
    remarks = {
        f"{source}: boxes that are there twice: {doubled}; one of each pair can only be missed": doubled,
        f"{source}: boxes without width or height: {flat}; they can only be missed": flat,
    }
    return tuple(text for text, count in remarks.items() if count)


def _read_json(path: Path) -> Any:
    if not is_file(path):
        raise InputError(f"data.annotations {str(path)!r}: no such file; give a COCO json or an Ultralytics data yaml")
    return read_json(path, "give a COCO annotation file")
