"""PreprocessedImages: letterboxed images on disk, decoded once and mapped into memory afterwards."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.image_files import ImageRecord, read_image, shown
from objectives.tasks.detection.data.letterbox import Letterbox, letterbox
from search_spaces.durable import durable_file, write_durably
from search_spaces.errors import InputError

_VERSION = 1  # change it whenever the same image would give other pixels


@dataclass(frozen=True)
class PreprocessedImages:
    """Images as the model takes them.

    Attributes:
        pixels: Shape (N, 3, H, W), uint8 RGB, mapped from disk.
        letterboxes: Placement of each image.
        ids: Image id of each image.
        digest: Names the cache entry: contents, order and input size.
    """

    pixels: NDArray[np.uint8]
    letterboxes: tuple[Letterbox, ...]
    ids: tuple[int, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.letterboxes)

    def singles(self) -> Iterator[NDArray[np.float32]]:
        """Batches of one image each, ``(1, 3, H, W)`` float32 in [0, 1]."""
        return (self.batch(index, index + 1) for index in range(len(self)))

    def batch(self, start: int, stop: int) -> NDArray[np.float32]:
        """Images `start` to `stop` (exclusive) as input: shape (n, 3, H, W), float32 in [0, 1]."""
        scaled: NDArray[np.float32] = self.pixels[start:stop].astype(np.float32) / np.float32(255)
        return scaled

    def at(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The images of those positions, as `batch` gives them."""
        scaled: NDArray[np.float32] = self.pixels[list(rows)].astype(np.float32) / np.float32(255)
        return scaled

    def first(self, n: int) -> PreprocessedImages:
        """The first `n` images."""
        return PreprocessedImages(self.pixels[:n], self.letterboxes[:n], self.ids[:n], f"{self.digest}:{n}")

    @staticmethod
    def build(
        records: Sequence[ImageRecord],
        image_size: tuple[int, int],
        folder: Path,
        progress: Callable[[int], None] | None = None,
    ) -> PreprocessedImages:
        """Opens the cache entry of these images, decoding them where there is none or it is damaged.

        Args:
            records: The images, with hashes.
            image_size: Input height and width, pixels.
            folder: Where entries are kept, 3 x H x W bytes per image.
            progress: Called with the number of images done.

        Raises:
            InputError: Images are unreadable, or of another size than the labels say; names up to five.
        """
        contents = "".join(record.sha256 for record in records)
        key = f"{_VERSION}:{image_size[0]}x{image_size[1]}:{contents}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        found = _open(folder, digest, len(records), image_size)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            _write(records, image_size, folder, digest, progress)
            found = _open(folder, digest, len(records), image_size)
            if found is None:
                raise InputError(f"{folder}: the image cache cannot be read back; check the disk")
        pixels, letterboxes = found
        _check_sizes(records, letterboxes)
        return PreprocessedImages(pixels, letterboxes, tuple(record.id for record in records), digest)


def _open(
    folder: Path, digest: str, count: int, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[Letterbox, ...]] | None:
    """Maps an entry; None where it is missing, cut short or its checksums disagree."""
    try:
        notes = json.loads((folder / f"{digest}.json").read_text(encoding="utf-8"))
        pixels = np.load(folder / f"{digest}.npy", mmap_mode="r", allow_pickle=False)
        letterboxes = tuple(Letterbox.of(place["width"], place["height"], size) for place in notes["letterboxes"])
        sums = [int(value) for value in notes["crc32"]]
        if [asdict(place) for place in letterboxes] != notes["letterboxes"]:
            return None
    except Exception:  # JSON, NumPy and arithmetic raise many classes; all mean that it is damaged
        return None
    if pixels.shape != (count, 3, *size) or pixels.dtype != np.uint8 or not len(letterboxes) == len(sums) == count:
        return None
    if any(zlib.crc32(image.data) != value for image, value in zip(pixels, sums, strict=True)):
        return None
    return pixels, letterboxes


def _write(
    records: Sequence[ImageRecord],
    size: tuple[int, int],
    folder: Path,
    digest: str,
    progress: Callable[[int], None] | None,
) -> None:
    """Decodes all images into a temporary entry, then puts it in place, its notes last."""
    letterboxes, sums, broken = [], [], []
    with durable_file(folder / f"{digest}.npy") as draft:
        pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(records), 3, *size))
        for index, record in enumerate(records):
            image = read_image(record.path)
            if image is None:
                broken.append(record.path.name)
            elif not broken:
                pixels[index], place = letterbox(image, size)
                letterboxes.append(asdict(place))
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
    write_durably(folder / f"{digest}.json", json.dumps({"letterboxes": letterboxes, "crc32": sums}))


def _check_sizes(records: Sequence[ImageRecord], letterboxes: Sequence[Letterbox]) -> None:
    wrong = [
        f"{record.path.name} is {place.width} x {place.height}, labels say {record.width} x {record.height}"
        for record, place in zip(records, letterboxes, strict=True)
        if record.width and record.height and (record.width, record.height) != (place.width, place.height)
    ]
    if wrong:
        raise InputError(
            f"{len(wrong)} images are of another size than their labels (EXIF orientation applied): "
            f"{'; '.join(wrong[:3])}; the labels belong to other images or to the unturned ones"
        )
