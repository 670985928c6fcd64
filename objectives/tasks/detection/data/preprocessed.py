"""PreprocessedImages: images as the model takes them, on disk, decoded once and mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.image_files import ImageRecord, read_image, shown
from objectives.tasks.detection.data.letterbox import Placement, letterbox
from objectives.tasks.detection.data.preprocessing import Preprocessing
from search_spaces.durable import durable_file, write_durably
from search_spaces.errors import InputError

_VERSION = 1  # change it whenever the same image would give other pixels


@dataclass(frozen=True)
class PreprocessedImages:
    """Images as the model takes them.

    Attributes:
        pixels: Shape (N, 3, H, W), uint8, mapped from disk.
        placements: Where each image lies in its input.
        ids: Image id of each image.
        digest: Names the cache entry: contents, order and preprocessing.
        preprocessing: What made the pixels, and makes input of them.
    """

    pixels: NDArray[np.uint8]
    placements: tuple[Placement, ...]
    ids: tuple[int, ...]
    digest: str
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.placements)

    def singles(self) -> Iterator[NDArray[np.float32]]:
        """Batches of one image each, ``(1, 3, H, W)`` float32."""
        return (self.batch(index, index + 1) for index in range(len(self)))

    def batch(self, start: int, stop: int) -> NDArray[np.float32]:
        """Images `start` to `stop` (exclusive) as input: shape (n, 3, H, W), float32."""
        return self.preprocessing.feed(self.pixels[start:stop])

    def at(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The images of those positions, as `batch` gives them."""
        return self.preprocessing.feed(self.pixels[list(rows)])

    def first(self, n: int) -> PreprocessedImages:
        """The first `n` images."""
        return replace(
            self,
            pixels=self.pixels[:n],
            placements=self.placements[:n],
            ids=self.ids[:n],
            digest=f"{self.digest}:{n}",
        )

    @staticmethod
    def build(
        records: Sequence[ImageRecord],
        preprocessing: Preprocessing,
        folder: Path,
        progress: Callable[[int], None] | None = None,
    ) -> PreprocessedImages:
        """Opens the cache entry of these images, decoding them where there is none or it is damaged.

        Args:
            records: The images, with hashes.
            preprocessing: Of the model.
            folder: Where entries are kept, 3 x H x W bytes per image.
            progress: Called with the number of images done.

        Raises:
            InputError: Images are unreadable, or of another size than the labels say; names up to five.
        """
        contents = "".join(record.sha256 for record in records)
        key = f"{_VERSION}:{preprocessing.key}:{contents}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        found = _open(folder, digest, len(records), preprocessing)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(records, preprocessing, folder, digest, progress)
            found = _open(folder, digest, len(records), preprocessing)
            if found is None:
                raise InputError(f"{folder}: the image cache cannot be read back; check the disk")
        pixels, placements = found
        _check_sizes(records, placements)
        return PreprocessedImages(pixels, placements, tuple(record.id for record in records), digest, preprocessing)


def _open(
    folder: Path, digest: str, count: int, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], tuple[Placement, ...]] | None:
    """Maps an entry; None where it is missing, cut short or its checksums disagree."""
    try:
        notes = json.loads((folder / f"{digest}.json").read_text(encoding="utf-8"))
        pixels = np.load(folder / f"{digest}.npy", mmap_mode="r", allow_pickle=False)
        placements = tuple(Placement.of(p["width"], p["height"], preprocessing) for p in notes["letterboxes"])
        sums = [int(value) for value in notes["crc32"]]
        if [_note(place) for place in placements] != notes["letterboxes"]:
            return None
    except Exception:  # JSON, NumPy and arithmetic raise many classes; all mean that it is damaged
        return None
    if (
        pixels.shape != (count, 3, *preprocessing.size)
        or pixels.dtype != np.uint8
        or not len(placements) == len(sums) == count
    ):
        return None
    if any(zlib.crc32(image.data) != value for image, value in zip(pixels, sums, strict=True)):
        return None
    return pixels, placements


def _write(
    records: Sequence[ImageRecord],
    preprocessing: Preprocessing,
    folder: Path,
    digest: str,
    progress: Callable[[int], None] | None,
) -> None:
    """Decodes all images into a temporary entry, then puts it in place, its notes last."""
    notes, sums, broken = [], [], []
    with durable_file(folder / f"{digest}.npy") as draft:
        pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(records), 3, *preprocessing.size))
        for index, record in enumerate(records):
            image = read_image(record.path)
            if image is None:
                broken.append(record.path.name)
            elif not broken:
                pixels[index], place = letterbox(image, preprocessing)
                notes.append(_note(place))
                sums.append(zlib.crc32(pixels[index].data))
            if progress is not None:
                progress(index + 1)
        if broken:
            raise InputError(
                f"{len(broken)} of {len(records)} images cannot be read: {shown(broken)} "
                f"(in {records[0].path.parent}); restore them or remove them from the set"
            )
        pixels.flush()
        del pixels
    write_durably(folder / f"{digest}.json", json.dumps({"letterboxes": notes, "crc32": sums}))


def _note(place: Placement) -> dict[str, float]:
    """A placement as an entry holds it; entries of before images could be stretched know one scale."""
    note: dict[str, float] = {"scale" if key == "scale_x" else key: value for key, value in asdict(place).items()}
    if place.scale_x == place.scale_y:
        del note["scale_y"]
    return note


def _check_sizes(records: Sequence[ImageRecord], placements: Sequence[Placement]) -> None:
    wrong = [
        f"{record.path.name} is {place.width} x {place.height}, labels say {record.width} x {record.height}"
        for record, place in zip(records, placements, strict=True)
        if record.width and record.height and (record.width, record.height) != (place.width, place.height)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} images are of another size than their labels (EXIF orientation applied): "
            f"{'; '.join(wrong[:3])}; the labels belong to other images or to the unturned ones"
        )
