"""Image files: records with content hashes, and reading that tells a broken file from a good one."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from search_spaces.limits import step
from search_spaces.reading import digest_of, each_line, is_file, read_sized

#: Ultralytics' list. A file that cannot be decoded here is named as such, never left out.
SUFFIXES = frozenset(
    {".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
_SHOWN = 5
MAX_IMAGE_BYTES = 1 << 30  # the largest satellite pictures; OpenCV itself takes 2^30 pixels at most
_MAX_DEPTH = 32
_MAX_OTHERS = 500_000  # entries of a folder that are no images, besides `_OTHERS_EACH` for each that is
_OTHERS_EACH = 20
_NARROWER = "name the folder that holds the images"


@dataclass(frozen=True)
class ImageRecord:
    """One image file.

    Attributes:
        id: COCO image id; the position in a calibration list.
        path: The file.
        width: Pixels as the labels say; 0 where they do not.
        height: Pixels as the labels say; 0 where they do not.
        sha256: Of the file's bytes, hex.
    """

    id: int
    path: Path
    width: int = 0
    height: int = 0
    sha256: str = ""


def images_in(folder: Path) -> list[Path]:
    """Images of a folder and of the folders in it, sorted; links to folders are not followed.

    Hidden files are none: a Mac leaves ``._name.jpg`` beside each ``name.jpg`` of an archive, editors their own copies.

    Raises:
        InputError: It is a whole disk rather than a set of images: too deep, or nearly all of it is something else.
    """
    found: list[Path] = []
    others = 0
    pending = [(folder, 0)]
    while pending:
        here, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise InputError(f"{folder}: folders in it are nested more than {_MAX_DEPTH} deep; {_NARROWER}")
        for entry in _listed(here):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append((here / entry.name, depth + 1))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                found.append(here / entry.name)
                continue
            others += 1
            if others > _MAX_OTHERS + _OTHERS_EACH * len(found):
                raise InputError(f"{folder}: {others} of the first entries in it are no images; {_NARROWER}")
    return sorted(found)


def _listed(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder; none of one that cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def listed_images(path: Path) -> Iterator[tuple[int, str]]:
    """What an image list names: ``(line number, path as written)``; blank lines and those that begin with # are none.

    A data yaml may name any file as its list, and so may whoever made it. One that is no list is read no further than
    to the first line that tells, and the error does not repeat what it holds.

    Raises:
        InputError: It cannot be read, or a line ends in no suffix of an image.
    """
    remedy = "write one image path per line"
    for number, name in enumerate(each_line(path, remedy), 1):
        if not name or name[0] == "#":
            continue
        if Path(name).suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path}: line {number} names no image (.jpg, .png, ...), so this is no image list; {remedy}"
            )
        yield number, name


def located(folder: Path, name: str, *, moved: bool = False) -> Path:
    """Where an image lies that a list or a label file names.

    Names are tried as they are written, then with Windows separators as ours, then without the leading folders that
    `folder` itself ends in (``val/1.jpg`` in ``.../val``).

    Args:
        folder: What the name is relative to.
        name: As written; absolute ones stay.
        moved: Whether the images are known to be in `folder`, wherever they were when the name was written: any leading
            folders may be missing then.

    Returns:
        The first that is a file; where none is, the one to look for.
    """
    plain = PurePosixPath(name.replace("\\", "/"))
    tried = [folder / name, folder / plain]
    above = folder.absolute().parts
    for count in range(1, len(plain.parts)):
        if moved or plain.parts[:count] == above[-count:]:
            tried.append(folder / PurePosixPath(*plain.parts[count:]))
    return next((path for path in tried if is_file(path)), tried[1])


def hash_files(records: Sequence[ImageRecord], source: Path) -> tuple[ImageRecord, ...]:
    """Returns the records with the hashes of their files.

    Raises:
        InputError: Files are missing, which names up to five of them, or one is too large.
    """
    missing = [record for record in records if not is_file(record.path)]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(records)} images are missing: "
            f"{shown(record.path.name for record in missing)}; they were sought in {missing[0].path.parent}"
        )
    remedy = "remove it from the set"
    return tuple(replace(each, sha256=digest_of(each.path, MAX_IMAGE_BYTES, remedy)) for each in records)


def read_image(path: Path) -> NDArray[np.uint8] | None:
    """Reads an image as Ultralytics does: 8-bit BGR, turned upright as its EXIF orientation says.

    OpenCV applies the orientation by default (no IMREAD_IGNORE_ORIENTATION), and Ultralytics takes label
    boxes to refer to the upright image.

    Returns:
        Shape (h, w, 3), uint8; None where the file cannot be decoded, is cut short, or has too many bytes or pixels.
    """
    try:
        data = read_sized(path, MAX_IMAGE_BYTES, "")
    except InputError:
        return None
    if not data or _is_cut(data):
        return None
    try:
        with step(path, "decoding it"):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def shown(names: Iterable[str]) -> str:
    """Joins up to five names, and says that there are more."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")


def _is_cut(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end or is damaged; decoders fill the rest with grey and say nothing."""
    if data.startswith(b"\xff\xd8"):
        # Scan data never holds the marker ff da, so an end marker must follow the last start of scan.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data.startswith(b"\x89PNG") and not _is_whole_png(data)


def _is_whole_png(data: bytes) -> bool:
    """Whether every chunk of a PNG is there and its checksum agrees (PNG specification, 5.3), up to the last."""
    start = 8
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 8 + length
        if zlib.crc32(data[start + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            return False
        if data[start + 4 : start + 8] == b"IEND":
            return True
        start = end + 4
    return False
