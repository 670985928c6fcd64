"""Seeded generator of labelled scenes: six kinds of shapes on cluttered, noisy grounds, boxes in COCO form.

Usage: `python scenes.py --out data --split eval --count 64 --seed 1` writes images/ and annotations.json;
`python scenes.py --out data --split calib --count 48 --seed 2` writes calib/ and calib.txt.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("disc", "striped", "ring", "square", "checker", "star")
SIZES = ((200, 150), (150, 200), (160, 160), (224, 140), (180, 180), (128, 192), (240, 160))  # width, height
GREY = 114
SHIFT = 4  # fractional bits of the coordinates handed to cv2.fillPoly

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One labelled image.

    Attributes:
        image: RGB pixels [H, W, 3].
        boxes: corners x1, y1, x2, y2 in pixels [N, 4].
        classes: indices into `NAMES` [N].
    """

    image: Image
    boxes: Floats
    classes: NDArray[np.int64]


def outline(kind: str) -> list[NDArray[np.float64]]:
    """Returns the closed contours of a shape in the unit circle, each [P, 2]; filled by the even-odd rule."""
    corners = {"square": 4, "checker": 4, "triangle": 3, "star": 10}.get(kind, 48)
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if kind == "star":
        points[1::2] *= 0.45
    return [points, points * 0.55] if kind == "ring" else [points]


def paint(
    canvas: Floats,
    kind: str,
    *,
    centre: tuple[float, float],
    radius: float,
    contrast: float,
    rng: np.random.Generator,
) -> Floats:
    """Paints one shape onto the canvas, in place.

    Args:
        canvas: RGB values 0..255 [H, W, 3].
        kind: one of `NAMES`, or "triangle", which is not labelled.
        centre: x, y in pixels.
        radius: of the circle around the shape, in pixels.
        contrast: how far, in grey levels, the colour stands off from the ground.
        rng: draws the pose and the colours.

    Returns:
        The visible outline's box x1, y1, x2, y2, clipped to the canvas [4].
    """
    height, width = canvas.shape[:2]
    turn, aspect = rng.uniform(0, 2 * np.pi), rng.uniform(0.72, 1.0)
    cos, sin = np.cos(turn), np.sin(turn)
    pose = np.array([[cos, sin], [-sin, cos]]) * np.array([[1.0], [aspect]]) * radius
    contours = [points @ pose + centre for points in outline(kind)]

    lo = np.floor(np.clip(contours[0].min(0) - 2, 0, (width - 1, height - 1))).astype(int)
    hi = np.ceil(np.clip(contours[0].max(0) + 2, 1, (width, height))).astype(int)
    patch = canvas[lo[1] : hi[1], lo[0] : hi[0]]
    mask = np.zeros(patch.shape[:2], np.uint8)
    # A pixel's centre lies at +0.5 in box coordinates and at an integer in OpenCV's.
    fixed = [np.round((points - lo - 0.5) * 2**SHIFT).astype(np.int32) for points in contours]
    cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, SHIFT)
    alpha = (mask.astype(np.float32) / 255.0 * rng.uniform(0.8, 1.0))[..., None]

    ground = patch.mean((0, 1))
    colour = ground + contrast * _direction(rng)
    fill = np.broadcast_to(colour, patch.shape)
    if kind in {"striped", "checker"}:
        rows, columns = np.mgrid[lo[1] : hi[1], lo[0] : hi[0]]
        local = np.stack([columns + 0.5 - centre[0], rows + 0.5 - centre[1]], -1) @ np.linalg.inv(pose)
        wave = np.sin(local[..., 0] * 7.5)
        if kind == "checker":  # The sides of a square lie at 45 degrees to its corners.
            total, difference = local[..., 0] + local[..., 1], local[..., 0] - local[..., 1]
            wave = np.sin(total * 4.7) * np.sin(difference * 4.7)
        tone = np.clip(wave * 2.5, -1, 1)[..., None]
        fill = ground + (colour - ground) * (0.25 + 0.75 * tone)
    patch += alpha * (fill - patch)

    limits = np.array([width, height], dtype=np.float64)
    corners = [np.clip(contours[0].min(0), 0, limits), np.clip(contours[0].max(0), 0, limits)]
    return np.concatenate(corners).astype(np.float32)


def _direction(rng: np.random.Generator) -> Floats:
    """Returns a random direction in colour space, mostly along the grey axis [3]."""
    axis = rng.normal(0, 0.45, 3) + rng.choice([-1.0, 1.0])
    return (axis / np.abs(axis).max()).astype(np.float32)


def _ground(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Returns a textured ground: blotches at two scales, a grating and stray lines [height, width, 3]."""
    canvas = np.full((height, width, 3), rng.uniform(70, 185, 3), np.float32)
    for cells, strength in ((4, 28.0), (14, 12.0)):
        blotches = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        canvas += cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    wave = rng.uniform(-0.7, 0.7, 2)
    canvas += rng.uniform(0, 9) * np.sin(columns * wave[0] + rows * wave[1])[..., None].astype(np.float32)
    for _ in range(rng.integers(0, 5)):
        start, end = ([int(v) for v in rng.integers(0, (width, height))] for _ in range(2))
        colour = [float(v) for v in rng.uniform(30, 225, 3)]
        cv2.line(canvas, start, end, colour, int(rng.integers(1, 4)))
    return canvas


def render(rng: np.random.Generator) -> Scene:
    """Draws one scene: two to nine labelled shapes, some of them overlapping, and unlabelled triangles."""
    width, height = SIZES[rng.integers(len(SIZES))]
    canvas = _ground(width, height, rng)
    boxes: list[Floats] = []
    classes: list[int] = []
    wanted = int(rng.integers(2, 10))
    for _ in range(wanted * 4):
        if len(boxes) == wanted:
            break
        radius = float(np.exp(rng.uniform(np.log(5.0), np.log(38.0))))
        centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        reach = np.array([*centre, *centre]) + radius * 0.8 * np.array([-1, -1, 1, 1])
        if reach.min() < -radius * 0.3 or reach[2] > width + radius * 0.3 or reach[3] > height + radius * 0.3:
            continue
        if any(_cover(reach, box) > 0.35 for box in boxes):
            continue
        contrast = float(rng.uniform(32, 110))
        if rng.random() < 0.15:
            paint(canvas, "triangle", centre=centre, radius=radius, contrast=contrast, rng=rng)
            continue
        label = int(rng.integers(len(NAMES)))
        box = paint(canvas, NAMES[label], centre=centre, radius=radius, contrast=contrast, rng=rng)
        boxes.append(box)
        classes.append(label)
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.0)).astype(np.float32)
    canvas += rng.normal(0, rng.uniform(2, 9), canvas.shape)
    image = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def _cover(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Returns the share of the smaller of two boxes [4] that the other one covers."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(sides.prod() / min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod()))


def letterbox(image: Image, size: int) -> tuple[Image, float, tuple[int, int]]:
    """Scales an image into a square and pads it evenly with grey, as Ultralytics does.

    Args:
        image: RGB pixels [H, W, 3].
        size: side of the square.

    Returns:
        The square [size, size, 3], the scale, and the left and top padding in pixels.
    """
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    wide, high = round(width * scale), round(height * scale)
    if (wide, high) != (width, height):
        image = cv2.resize(image, (wide, high), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    left, top = round((size - wide) / 2 - 0.1), round((size - high) / 2 - 0.1)
    square = np.full((size, size, 3), GREY, np.uint8)
    square[top : top + high, left : left + wide] = image
    return square, scale, (left, top)


def coco(scenes: list[Scene]) -> dict[str, Any]:
    """Returns the COCO annotations of the scenes; image i is `i:06d.jpg`, and all numbers start at one."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=1):
        height, width = scene.image.shape[:2]
        images.append({"id": number, "file_name": f"{number:06d}.jpg", "width": width, "height": height})
        for box, label in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            x, y, wide, high = (round(v, 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1}
            annotation |= {"bbox": [x, y, wide, high], "area": round(wide * high, 2), "iscrowd": 0}
            annotations.append(annotation)
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main() -> None:
    """Writes one split."""
    parser = argparse.ArgumentParser(description="Writes one split of the demo scenes.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--split", choices=("eval", "calib"), required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG files")
    args = parser.parse_args()

    rng = np.random.default_rng([args.seed, ("eval", "calib").index(args.split)])
    scenes = [render(rng) for _ in range(args.count)]
    folder = args.out / ("images" if args.split == "eval" else "calib")
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes, start=1):
        bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, args.quality])
    if args.split == "eval":
        text = json.dumps(coco(scenes)) + "\n"
        (args.out / "annotations.json").write_text(text, encoding="utf-8")
    else:
        listing = "".join(f"calib/{number:06d}.jpg\n" for number in range(1, args.count + 1))
        (args.out / "calib.txt").write_text(listing, encoding="utf-8")


if __name__ == "__main__":
    main()
