import numpy as np
import pytest

from objectives.tasks.detection.data.letterbox import Placement, letterbox
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing


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
    place = Placement.of(width, height, Preprocessing(size))
    assert place.scale_x == place.scale_y == pytest.approx(scale)
    assert (place.pad_left, place.pad_top) == (left, top)


def test_image_is_rgb_planes_on_grey():
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0], image[..., 2] = 10, 200  # blue 10, red 200
    planes, place = letterbox(image, Preprocessing((64, 64)))
    assert planes.shape == (3, 64, 64)
    assert planes.dtype == np.uint8
    assert (place.pad_top, place.pad_left) == (16, 0)
    assert (planes[:, :16] == 114).all()
    assert (planes[:, 48:] == 114).all()
    assert [int(planes[c, 30, 30]) for c in range(3)] == [200, 0, 10]


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("shape", [(37, 91), (640, 480), (1, 200), (333, 5)])
def test_boxes_return_to_the_image(shape, fit):
    place = Placement.of(shape[1], shape[0], Preprocessing((96, 64), fit))
    box = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    assert place.to_image(place.to_input(box)) == pytest.approx(box, abs=1e-3)


@pytest.mark.parametrize(
    ("fit", "rows", "columns"),
    [(Fit.CENTRED, (16, 48), (0, 64)), (Fit.TOP_LEFT, (0, 32), (0, 64)), (Fit.STRETCHED, (0, 64), (0, 64))],
)
def test_the_fit_says_where_the_image_lies(fit, rows, columns):
    image = np.full((20, 40, 3), 200, np.uint8)
    planes, place = letterbox(image, Preprocessing((64, 64), fit, padding=7))
    inside = planes[:, slice(*rows), slice(*columns)]
    assert (inside == 200).all() and (planes == 200).sum() == inside.size and ((planes == 200) | (planes == 7)).all()
    corners = np.array([[columns[0], rows[0], columns[1], rows[1]]], np.float32)
    assert place.to_image(corners).tolist() == [[0, 0, 40, 20]]


def test_channels_and_scale_are_the_models():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0], image[..., 2] = 10, 200  # blue 10, red 200
    how = Preprocessing((8, 8), channels="bgr", divisor=1.0)
    planes, _ = letterbox(image, how)
    assert how.feed(planes[None])[0, :, 4, 4].tolist() == [10, 0, 200]
    how = Preprocessing((8, 8), mean=(0.5, 0.4, 0.25), std=(0.5, 0.2, 1.0))
    planes, _ = letterbox(image, how)
    expected = [(200 / 255 - 0.5) / 0.5, -0.4 / 0.2, 10 / 255 - 0.25]
    assert how.feed(planes[None])[0, :, 4, 4].tolist() == pytest.approx(expected, abs=1e-6)


def test_boxes_are_clipped_to_the_image():
    place = Placement.of(40, 20, Preprocessing((64, 64)))
    assert place.to_image(np.array([[-50, -50, 500, 500]], np.float32)).tolist() == [[0, 0, 40, 20]]
