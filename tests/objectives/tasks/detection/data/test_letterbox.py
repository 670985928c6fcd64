import numpy as np
import pytest

from objectives.tasks.detection.data.letterbox import PADDING, Letterbox, letterbox


@pytest.mark.parametrize(
    ("height", "width", "size", "scale", "left", "top"),
    [
        (480, 640, (640, 640), 1.0, 0, 80),
        (500, 375, (640, 640), 1.28, 80, 0),
        (427, 640, (640, 640), 1.0, 0, 106),  # 213 rows to share: the smaller half is above
        (100, 50, (64, 96), 0.64, 32, 0),
    ],
)
def test_placement_is_that_of_ultralytics(height, width, size, scale, left, top):
    place = Letterbox.of(width, height, size)
    assert place.scale == pytest.approx(scale)
    assert (place.pad_left, place.pad_top) == (left, top)


def test_image_is_rgb_planes_on_grey():
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0], image[..., 2] = 10, 200  # blue 10, red 200
    planes, place = letterbox(image, (64, 64))
    assert planes.shape == (3, 64, 64)
    assert planes.dtype == np.uint8
    assert (place.pad_top, place.pad_left) == (16, 0)
    assert (planes[:, :16] == PADDING).all()
    assert (planes[:, 48:] == PADDING).all()
    assert [int(planes[c, 30, 30]) for c in range(3)] == [200, 0, 10]


@pytest.mark.parametrize("shape", [(37, 91), (640, 480), (1, 200), (333, 5)])
def test_boxes_return_to_the_image(shape):
    place = Letterbox.of(shape[1], shape[0], (96, 64))
    box = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    pads = np.array([place.pad_left, place.pad_top] * 2, np.float32)
    assert place.to_image(box * place.scale + pads) == pytest.approx(box, abs=1e-3)


def test_boxes_are_clipped_to_the_image():
    place = Letterbox.of(40, 20, (64, 64))
    assert place.to_image(np.array([[-50, -50, 500, 500]], np.float32)).tolist() == [[0, 0, 40, 20]]
