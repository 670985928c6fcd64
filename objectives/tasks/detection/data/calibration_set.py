"""CalibrationSet: the images that ranges are taken from, and the check that they are not evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES, read_data_yaml
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files, images_in, listed_images, located
from search_spaces.errors import InputError
from search_spaces.reading import is_file, is_folder

_SHOWN = 3
_DRAWN = 128  # images of a folder where nobody says how many; ranges change little beyond


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration images, in the order of their list.

    Attributes:
        images: The records; `id` is the position in the list.
        source: The list, folder or data yaml.
        available: How many images there are in all; 0 where that does not matter, as the user chose from a list.
        held_out: Whether they were taken out of the evaluation images.
    """

    images: tuple[ImageRecord, ...]
    source: Path
    available: int = 0
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """SHA-256 over the image contents in order, hex."""
        return hashlib.sha256("".join(image.sha256 for image in self.images).encode()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen for the user, a line each, for people."""
        if self.held_out:
            return (f"{self.source}: {len(self)} of its {self.available} images calibrate, and are not scored",)
        if len(self) >= self.available:
            return ()
        return (f"{self.source}: calibration takes {len(self)} of its {self.available} images, always the same",)


def load_calibration(path: Path | str, limit: int | None = None, scored: CocoDataset | None = None) -> CalibrationSet:
    """Reads the calibration images: those of a list, of a folder, or of the ``train`` split of a data yaml.

    A list has one path per line, relative to the list's folder or absolute; blank lines and lines that begin with
    ``#`` are skipped. Of a folder or a split some are drawn, always the same and in the same order, so that the first
    few are a sample as well: a folder's order is that of a film, a place or a class.

    Args:
        path: The list, the folder or the data yaml.
        limit: How many images to take, of a list from the top. None: all of a list, 128 of the others.
        scored: Images that none is drawn from, by content. A list is taken as it is: see `check_disjoint`.

    Raises:
        InputError: It is missing, empty, holds fewer than `limit`, or a list names a missing or doubled file.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise InputError(f"calibration.images: {limit} is too few; ask for at least 1")
    if path.suffix.lower() in YAML_SUFFIXES:
        return _drawn(read_data_yaml(path).images("train"), path, limit, scored)
    if is_folder(path):
        return _drawn(images_in(path), path, limit, scored)
    if not is_file(path):
        raise InputError(
            f"data.calibration {str(path)!r}: no such image list; give a list with one image path per line, "
            "an image folder, or a data yaml"
        )
    records: list[ImageRecord] = []
    seen: dict[str, int] = {}
    for number, name in listed_images(path):
        if len(records) == limit:
            break
        file = located(path.parent, name)
        if not is_file(file):
            raise InputError(f"{path}:{number}: no such image {name!r} (sought at {file})")
        record = hash_files([ImageRecord(len(records), file)], path)[0]
        if record.sha256 in seen:
            raise InputError(
                f"{path}:{number}: {name!r} has the same content as line {seen[record.sha256]}; remove one"
            )
        seen[record.sha256] = number
        records.append(record)
    if not records:
        raise InputError(f"{path}: lists no image; write one image path per line")
    if limit is not None and len(records) < limit:
        raise InputError(f"{path}: lists {len(records)} images, fewer than the {limit} of calibration.images")
    return CalibrationSet(tuple(records), path)


def _drawn(files: Sequence[Path], source: Path, limit: int | None, scored: CocoDataset | None) -> CalibrationSet:
    """Draws images by the hashes of their names, each content once."""
    order = sorted(files, key=lambda file: (hashlib.sha256(file.name.encode()).digest(), file))
    taken = {image.sha256 for image in scored.images} if scored is not None else set()
    found: dict[str, ImageRecord] = {}
    for file in order:
        if len(found) == (limit or _DRAWN):
            break
        record = hash_files([ImageRecord(len(found), file)], source)[0]
        if record.sha256 not in taken:
            found.setdefault(record.sha256, record)
    if not found and files:
        raise InputError(
            f"{source}: all {len(files)} calibration images are also evaluated on; name other images as "
            "data.calibration, or none: then some of the evaluation images calibrate and are not scored"
        )
    if not found:
        raise InputError(f"{source}: holds no image; give a folder, a data yaml or a list of calibration images")
    if limit is not None and len(found) < limit:
        raise InputError(f"{source}: holds {len(found)} different images, fewer than the {limit} of calibration.images")
    return CalibrationSet(tuple(found.values()), source, len(files))


def held_out(dataset: CocoDataset, limit: int | None = None) -> tuple[CalibrationSet, CocoDataset]:
    """Splits an evaluation set where no calibration images were named: a quarter calibrates, the rest is scored.

    The quarter is always the same, by content; each content counts once, on the one side or the other.

    Args:
        dataset: All images.
        limit: How many images calibrate; None: a quarter, at most 128.

    Raises:
        InputError: The images do not suffice.
    """
    unlike = {image.sha256: image for image in dataset.images}
    count = limit or min(_DRAWN, max(1, len(unlike) // 4))
    if count >= len(unlike):
        raise InputError(
            f"{dataset.source}: holds {len(unlike)} different images, too few to calibrate on {count} and to score "
            "others; give more images, or data.calibration"
        )
    chosen = {digest: unlike[digest] for digest in sorted(unlike, reverse=True)[:count]}
    records = tuple(replace(image, id=number) for number, image in enumerate(chosen.values()))
    rest = dataset.only({image.id for image in dataset.images if image.sha256 not in chosen})
    return CalibrationSet(records, dataset.source, len(dataset), held_out=True), rest


def check_disjoint(calibration: CalibrationSet, dataset: CocoDataset) -> None:
    """Checks by content that no calibration image is evaluated on.

    Raises:
        InputError: Names the pairs.
    """
    evaluated = {image.sha256: image for image in dataset.images}
    pairs = [
        f"{image.path.name} = {evaluated[image.sha256].path.name}"
        for image in calibration.images
        if image.sha256 in evaluated
    ]
    if pairs:
        more = ", ..." if len(pairs) > _SHOWN else ""
        raise InputError(
            f"{calibration.source}: {len(pairs)} calibration images are also evaluated on: "
            f"{', '.join(pairs[:_SHOWN])}{more}; calibrate on other images, e.g. by a list without them"
        )
