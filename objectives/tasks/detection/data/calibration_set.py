"""CalibrationSet: the images that ranges are taken from, and the check that they are not evaluated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.data.image_files import ImageRecord, hash_files
from search_spaces.errors import InputError
from search_spaces.reading import is_file

_SHOWN = 3


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration images, in the order of their list.

    Attributes:
        images: The records; `id` is the position in the list.
        source: The list.
    """

    images: tuple[ImageRecord, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """SHA-256 over the image contents in order, hex."""
        return hashlib.sha256("".join(image.sha256 for image in self.images).encode()).hexdigest()


def load_calibration(path: Path | str, limit: int | None = None) -> CalibrationSet:
    """Reads an image list: one path per line, relative to the list's folder or absolute.

    Blank lines and lines that begin with ``#`` are skipped.

    Args:
        path: The list.
        limit: How many images to take, from the top; None for all.

    Raises:
        InputError: The list is missing, empty, shorter than `limit`, or names a missing or doubled file.
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(f"data.calibration {str(path)!r}: no such image list; write one image path per line")
    if limit is not None and limit < 1:
        raise InputError(f"calibration.images: {limit} is too few; ask for at least 1")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"data.calibration {str(path)!r}: not a text file; write one image path per line") from None
    records: list[ImageRecord] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if len(records) == limit:
            break
        file = path.parent / name
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
            f"{', '.join(pairs[:_SHOWN])}{more}; remove them from the list"
        )
