import cv2
import numpy as np
import pytest
from tiny_detectors import write_images

from objectives.tasks.detection.data.image_files import ImageRecord, hash_files, read_image
from objectives.tasks.detection.data.letterbox import letterbox
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from search_spaces.errors import InputError

SIZE = (64, 96)
HOW = Preprocessing(SIZE)
OPTIONS = (
    Preprocessing(SIZE, Fit.TOP_LEFT),
    Preprocessing(SIZE, Fit.STRETCHED),
    Preprocessing(SIZE, channels="bgr", divisor=1.0),
    Preprocessing(SIZE, padding=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)),
)


@pytest.fixture
def records(tmp_path):
    paths = write_images(tmp_path / "images", 4)
    return hash_files([ImageRecord(10 + i, path) for i, path in enumerate(paths)], tmp_path)


def test_holds_what_letterbox_gives(tmp_path, records):
    seen = []
    images = PreprocessedImages.build(records, HOW, tmp_path / "cache", seen.append)
    assert seen == [1, 2, 3, 4]
    assert (len(images), images.ids) == (4, (10, 11, 12, 13))
    pixels, place = letterbox(read_image(records[2].path), HOW)
    assert images.placements[2] == place
    assert np.array_equal(images.batch(2, 3)[0], pixels.astype(np.float32) / np.float32(255))
    assert images.batch(1, 4).shape == (3, 3, *SIZE)


def test_is_decoded_once(tmp_path, records):
    first = PreprocessedImages.build(records, HOW, tmp_path / "cache")
    for record in records:
        record.path.unlink()
    seen = []
    again = PreprocessedImages.build(records, HOW, tmp_path / "cache", seen.append)
    assert not seen
    assert np.array_equal(first.pixels, again.pixels)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_order_and_size_are_part_of_the_key(tmp_path, records):
    digests = {
        PreprocessedImages.build(chosen, how, tmp_path / "cache").digest
        for chosen, how in [
            (records[::-1], HOW),
            (records[:3], HOW),
            *((records, how) for how in (HOW, Preprocessing((32, 32)), *OPTIONS)),
        ]
    }
    assert len(digests) == 4 + len(OPTIONS)


@pytest.mark.parametrize("damage", ["cut", "flipped", "notes", "absent"])
def test_a_damaged_entry_is_rebuilt(tmp_path, records, damage):
    good = np.array(PreprocessedImages.build(records, HOW, tmp_path / "cache").pixels)
    pixels = next((tmp_path / "cache").glob("*.npy"))
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-100])
    elif damage == "flipped":
        data = bytearray(pixels.read_bytes())
        data[-1] ^= 255
        pixels.write_bytes(bytes(data))
    elif damage == "notes":
        next((tmp_path / "cache").glob("*.json")).write_text('{"letterboxes": [')
    else:
        pixels.unlink()
    rebuilt = PreprocessedImages.build(records, HOW, tmp_path / "cache")
    assert np.array_equal(rebuilt.pixels, good)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_cut_images_are_named_and_leave_no_entry(tmp_path, records, suffix):
    image = read_image(records[0].path)
    path = tmp_path / f"cut{suffix}"
    cv2.imwrite(str(path), np.kron(image, np.ones((4, 4, 1), np.uint8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    broken = hash_files([*records, ImageRecord(50, path), ImageRecord(51, empty)], tmp_path)
    with pytest.raises(InputError, match=rf"2 of 6 images cannot be read: cut{suffix}, empty\.jpg"):
        PreprocessedImages.build(broken, HOW, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_png_of_a_wrong_checksum_is_no_image(records):
    path = records[0].path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last chunk: libpng warns, and decodes
    path.write_bytes(bytes(data))
    assert cv2.imread(str(path)) is not None
    assert read_image(path) is None


def test_images_of_another_size_than_their_labels(tmp_path, records):
    wrong = [ImageRecord(r.id, r.path, 7, 9, r.sha256) for r in records[:1]]
    with pytest.raises(InputError, match=r"00_000\.png is \d+ x \d+, labels say 7 x 9"):
        PreprocessedImages.build(wrong, HOW, tmp_path / "cache")


def test_first(tmp_path, records):
    images = PreprocessedImages.build(records, HOW, tmp_path / "cache")
    two = images.first(2)
    assert (len(two), two.ids) == (2, (10, 11))
    assert two.digest != images.digest


@pytest.mark.parametrize("how", OPTIONS)
def test_each_preprocessing_is_kept_and_read_again(tmp_path, records, how):
    first = PreprocessedImages.build(records, how, tmp_path / "cache")
    seen = []
    again = PreprocessedImages.build(records, how, tmp_path / "cache", seen.append)
    assert not seen and again.placements == first.placements
    pixels, place = letterbox(read_image(records[1].path), how)
    assert again.placements[1] == place
    assert np.array_equal(again.batch(1, 2), how.feed(pixels[None]))
    assert np.array_equal(again.at([1]), again.batch(1, 2))


def test_a_plain_entry_is_that_of_every_earlier_version(records):
    """A run's images are found again: neither the key nor the notes may change where nothing else did."""
    assert HOW.key == "64x96"
