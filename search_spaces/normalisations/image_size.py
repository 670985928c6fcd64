"""The image size of a model that leaves it open (`dynamic=True`): fixed when the model is read.

A graph of any size computes its anchors, and the sizes that it reshapes and resizes to, from its input. Once that has a
size, the folding of shapes makes constants of them; engines need no profile, and layers have shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from search_spaces.errors import InputError
from search_spaces.reading import literal

#: Pixels. A model says how large its images are; each of them takes 15 bytes a pixel, before any layer runs.
LARGEST_SIDE = 4096
SMALLEST_SIDE = 32


def check_size(given: tuple[int, ...]) -> None:
    """Checks an image size that a person gave.

    Raises:
        InputError: It is not height and width, or one of them is no size of images.
    """
    if len(given) != 2 or min(given) < SMALLEST_SIDE or max(given) > LARGEST_SIDE:
        raise InputError(
            f"model.image_size: {list(given)} must be height and width, each at least {SMALLEST_SIDE} and at most "
            f"{LARGEST_SIDE}"
        )


def stated_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Height and width, pixels, that a model's metadata states (Ultralytics' ``imgsz``); None where it does not."""
    found = literal(metadata.get("imgsz", "None"))
    if not isinstance(found, (list, tuple)) or len(found) != 2 or not all(isinstance(size, int) for size in found):
        return None
    height, width = found
    return int(height), int(width)


def fix_image_size(model: onnx.ModelProto, given: tuple[int, int] | None) -> tuple[int, int] | None:
    """Fixes the size of an input that leaves its height or width open: what was given, else what it states, in place.

    Args:
        model: Its first input is the image, its inferred shapes are dropped.
        given: Height and width, pixels; not looked at where the input has both.

    Returns:
        The size that it got; None where it had one, or there is none to give it.

    Raises:
        InputError: What was given is no size of images.
    """
    sides = model.graph.input[0].type.tensor_type.shape.dim[-2:]
    if all(side.dim_value for side in sides):
        return None
    if given is not None:
        check_size(given)
    wanted = given or stated_size({entry.key: entry.value for entry in model.metadata_props})
    if wanted is None or not all(0 < side <= LARGEST_SIDE for side in wanted):
        return None
    for side, size in zip(sides, wanted, strict=True):
        side.dim_value = side.dim_value or size
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_value:
                dim.Clear()  # a symbol that the input no longer has
    height, width = (int(side.dim_value) for side in sides)
    return height, width
