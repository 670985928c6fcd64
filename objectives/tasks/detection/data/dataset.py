"""CocoDataset: evaluation images with their boxes, checked by name before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from objectives.tasks.detection.data.coco_json import Annotation, Category, read_coco
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from objectives.tasks.detection.data.yolo_labels import read_data_yaml
from search_spaces.errors import InputError, nearest
from search_spaces.reading import is_file, is_folder, parse_json

__all__ = ["Annotation", "Category", "CocoDataset", "ImageRecord", "load_dataset"]


@dataclass(frozen=True)
class CocoDataset:
    """Images and their boxes.

    Attributes:
        images: In the order of the annotation file.
        annotations: Boxes of these images.
        categories: All categories of the annotation file.
        source: The annotation file, or the data yaml.
    """

    images: tuple[ImageRecord, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.images)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Ids of the categories that have at least one box here, sorted."""
        return tuple(sorted({annotation.category_id for annotation in self.annotations}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over image contents, boxes and categories, hex; independent of paths."""
        data = {
            "images": [[image.id, image.sha256] for image in self.images],
            "annotations": [vars(annotation) for annotation in self.annotations],
            "categories": [vars(category) for category in self.categories],
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

    def category_of_class(self, classes: Sequence[str], class_count: int) -> tuple[int | None, ...]:
        """Maps class indices of a model to category ids of the labels.

        By name where the model has class names, else by sorted category id where the counts agree.

        Args:
            classes: Class names by index; may be empty.
            class_count: Number of classes; 0 where unknown.

        Returns:
            A category id per class index; None for classes without a labelled object.

        Raises:
            InputError: A labelled category is not a class of the model, or counts disagree.
        """
        used = set(self.category_ids)
        if classes:
            index = {_normal(name): position for position, name in enumerate(classes)}
            found: list[int | None] = [None] * len(classes)
            for category in self.categories:
                position = index.get(_normal(category.name))
                if position is not None:
                    found[position] = category.id if category.id in used else None
                elif category.id in used:
                    raise InputError(
                        f"{self.source}: category {category.name!r} is not one of the model's {len(classes)} "
                        f"classes{nearest(category.name, classes)}; labels: {len(self.categories)}; "
                        "set model.classes to the labels' names in the model's order"
                    )
            return tuple(found)
        if class_count != len(self.categories):
            raise InputError(
                f"{self.source}: the labels have {len(self.categories)} categories, the model has "
                f"{class_count or 'an unknown number of'} classes without names; set model.classes"
            )
        return tuple(sorted(category.id for category in self.categories))


def load_dataset(images: Path | str, annotations: Path | str | None = None) -> CocoDataset:
    """Reads an evaluation set and checks it.

    Args:
        images: Folder of the images; or an Ultralytics data yaml (its ``val`` images are used).
        annotations: COCO json; None or an Ultralytics data yaml, where `images` then is not used.

    Raises:
        InputError: A file is missing, of the wrong structure or contradicts itself.
    """
    folder = Path(images)
    source = Path(annotations) if annotations is not None else folder
    if source.suffix.lower() in (".yaml", ".yml"):
        drafts, boxes, categories = read_data_yaml(source)
        return CocoDataset(hash_files(drafts, source), boxes, categories, source)
    if annotations is None:
        raise InputError(f"{folder}: give data.annotations (a COCO json), or an Ultralytics data yaml as data.images")
    if not is_folder(folder):
        raise InputError(f"data.images {str(folder)!r}: no such folder; give the folder of the evaluation images")
    data = _read_json(source)
    drafts, boxes, categories = read_coco(data, folder, source)
    return CocoDataset(hash_files(drafts, source), boxes, categories, source)


def _read_json(path: Path) -> Any:
    if not is_file(path):
        raise InputError(f"data.annotations {str(path)!r}: no such file; give a COCO json or an Ultralytics data yaml")
    return parse_json(path.read_bytes(), str(path), "give a COCO annotation file")


def _normal(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
