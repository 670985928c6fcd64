"""Places text beside points of a scatter plot so that no label covers another, nor the points that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels, y downwards
Pixel = tuple[float, float]

_DISTANCES = (18.0, 28.0, 42.0, 60.0, 84.0, 112.0)
_ANGLES = tuple(math.radians(a) for a in (-45, 45, -90, 90, 0, -135, 135, 180, -20, 20, -160, 160, -70, 70, -110, 110))


def place(
    anchors: Sequence[Pixel],
    texts: Sequence[str],
    obstacles: Sequence[Pixel],
    area: Pixel,
    *,
    character: float = 6.4,
    line: float = 15.0,
) -> list[Pixel]:
    """Chooses an offset for each label, greedily, in the order given (put the important ones first).

    Args:
        anchors: Points to label, pixels from the top left of the plot area.
        texts: One line each.
        obstacles: Further points better not covered.
        area: Width and height of the plot area, pixels.
        character: Mean width of a character, pixels.
        line: Height of a line, pixels.

    Returns:
        Offsets ``(dx, dy)`` of each text's centre from its point, pixels, y downwards.
    """
    boxes: list[Box] = []
    leaders: list[tuple[Pixel, Pixel]] = []
    offsets = []
    marks = [*obstacles, *anchors]
    for anchor, text in zip(anchors, texts, strict=True):
        half = (character * len(text) / 2 + 3, line / 2 + 1)
        best: tuple[float, Pixel, Box] | None = None
        for distance in _DISTANCES:
            for angle in _ANGLES:
                # The distance is that of the box's edge, so that wide labels do not sit on their point.
                dx = math.cos(angle) * (distance + (half[0] - 8) * abs(math.cos(angle)))
                dy = math.sin(angle) * distance
                x, y = anchor[0] + dx, anchor[1] + dy
                box = (x - half[0], y - half[1], x + half[0], y + half[1])
                cost = _cost(box, anchor, (x, y), boxes, leaders, marks, area) + 0.4 * distance
                if best is None or cost < best[0]:
                    best = (cost, (dx, dy), box)
        assert best is not None
        offsets.append(best[1])
        boxes.append(best[2])
        leaders.append((anchor, (anchor[0] + best[1][0], anchor[1] + best[1][1])))
    return offsets


def _cost(
    box: Box,
    anchor: Pixel,
    centre: Pixel,
    boxes: Sequence[Box],
    leaders: Sequence[tuple[Pixel, Pixel]],
    marks: Sequence[Pixel],
    area: Pixel,
) -> float:
    cost = 0.0
    if box[0] < 0 or box[1] < 0 or box[2] > area[0] or box[3] > area[1]:
        cost += 4000
    for other in boxes:
        if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
            cost += 2000
        if _crosses(anchor, centre, other):
            cost += 300
    cost += sum(300 for start, end in leaders if _crosses(start, end, box))
    grown = (box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5)
    return cost + sum(30 for x, y in marks if grown[0] < x < grown[2] and grown[1] < y < grown[3])


def _crosses(start: Pixel, end: Pixel, box: Box) -> bool:
    """Whether the segment touches the box, sampled finely enough for labels."""
    for step in range(0, 13):
        x = start[0] + (end[0] - start[0]) * step / 12
        y = start[1] + (end[1] - start[1]) * step / 12
        if box[0] < x < box[2] and box[1] < y < box[3]:
            return True
    return False
