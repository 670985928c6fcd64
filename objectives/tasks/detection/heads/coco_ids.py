"""Class names of models whose class indices are COCO's category ids, 0 to 90, eleven of which COCO never used."""

from __future__ import annotations

_GROUPS = {
    1: "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant",
    13: "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    27: "backpack, umbrella",
    31: "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle",
    46: "wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, "
    "donut, cake, chair, couch, potted plant, bed",
    67: "dining table",
    70: "toilet",
    72: "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator",
    84: "book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
}
_NAMES = {first + place: name for first, names in _GROUPS.items() for place, name in enumerate(names.split(", "))}
#: Names by category id; an id that no category has is named after itself.
COCO_IDS = tuple(_NAMES.get(number, f"N/A {number}") for number in range(91))


def names_of(count: int, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names of `count` classes: those given, else COCO's where there are as many as COCO has ids, else none."""
    return given or (COCO_IDS if count == len(COCO_IDS) else ())
