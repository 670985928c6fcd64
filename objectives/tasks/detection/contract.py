"""DetectorContract: what a model's output means, read from the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from objectives.tasks.detection.heads.structure import ChannelParts, channel_parts, dense_head
from search_spaces.errors import InputError, nearest
from search_spaces.model_graph import ModelGraph
from search_spaces.reading import literal

END_TO_END, SCORES, RAW = "end_to_end", "scores", "raw"
LAYOUTS = (END_TO_END, SCORES, RAW)
_STRIDES = (
    (8, 16, 32),
    (8, 16, 32, 64),
    (4, 8, 16, 32),
    (16, 32),
    (8, 16),
    (4, 8, 16),
    (8,),
    (16,),
    (32,),
    (4,),
)
_DEFAULT_REG_MAX = 16
#: Pixels. A model says how large its images are; each of them takes 15 bytes a pixel, before any layer runs.
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Thresholds:
    """How detections are selected; the defaults are Ultralytics' validation.

    Attributes:
        confidence: A (box, class) pair is a candidate if its score exceeds this.
        iou: Of two boxes of one class with a larger IoU only the better survives (not for ``end_to_end``).
        max_detections: Per image.
        max_candidates: Best pairs per image that enter non-maximum suppression.
    """

    confidence: float = 0.001
    iou: float = 0.7
    max_detections: int = 300
    max_candidates: int = 30000


@dataclass(frozen=True)
class DetectorContract:
    """How to feed a detector and to read its output.

    Attributes:
        image_size: Input height and width, pixels.
        layout: ``end_to_end`` (batch, k, 6): x1, y1, x2, y2, score, class in input pixels, suppressed;
            ``scores`` (batch, 4 + classes, anchors): centre x, y, width, height in input pixels, scores;
            ``raw`` (batch, 4 x reg_max + classes, anchors): distance bins and class logits.
        classes: Class names by index; empty where the model has none.
        class_count: Number of classes; 0 where neither the model nor the study says (``end_to_end`` only).
        output: Name of the output that holds the detections.
        output_index: Its position among the graph's outputs.
        transposed: Whether the last two axes are swapped: (batch, anchors, channels).
        reg_max: Bins per box side (``raw`` only; 1 elsewhere).
        strides: Pixels per anchor cell, one per level (``raw`` only; empty elsewhere).
    """

    image_size: tuple[int, int]
    layout: str
    classes: tuple[str, ...]
    class_count: int
    output: str
    output_index: int = 0
    transposed: bool = False
    reg_max: int = 1
    strides: tuple[int, ...] = ()


def recognise(
    graph: ModelGraph,
    *,
    layout: str | None = None,
    image_size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
) -> DetectorContract:
    """Reads the contract of a detector from its graph and metadata.

    Args:
        graph: The model.
        layout: One of `LAYOUTS`, to override what the structure says.
        image_size: Input height and width; needed only where the model leaves them open.
        classes: Class names by index, to override the metadata.

    Raises:
        InputError: The model is not a detector of a known layout, or an override contradicts it.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"model.layout: {layout!r} is unknown{nearest(layout, LAYOUTS)} ({', '.join(LAYOUTS)})")
    size = _image_size(graph, image_size)
    names = _class_names(graph, classes)
    problems = []
    for index, (output, shape) in enumerate(graph.outputs.items()):
        try:
            return _recognise_output(graph, index, output, shape, layout, size, names)
        except InputError as error:
            problems.append(str(error))
    shapes = ", ".join(f"{name} {_text(shape)}" for name, shape in graph.outputs.items())
    reason = f" ({problems[0]})" if problems else ""
    raise InputError(
        f"{graph.path}: is not a detector of a known layout: output {shapes}{reason}; known are (N, k, 6), "
        "(N, 4 + classes, anchors), (N, 4 x bins + classes, anchors); model.layout and model.classes override"
    )


def anchor_strides(anchors: int, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Returns the strides whose cells over the image add up to `anchors`; empty where no usual set does."""
    for strides in _STRIDES:
        if sum(cells(image_size, stride)[0] * cells(image_size, stride)[1] for stride in strides) == anchors:
            return strides
    return ()


def cells(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of anchor cells at one stride."""
    return -(-image_size[0] // stride), -(-image_size[1] // stride)


def _recognise_output(
    graph: ModelGraph,
    index: int,
    output: str,
    shape: tuple[int, ...],
    layout: str | None,
    size: tuple[int, int],
    names: tuple[str, ...],
) -> DetectorContract:
    if len(shape) != 3:
        raise InputError(f"{output} has {len(shape)} axes, not 3")
    if layout == END_TO_END or (layout is None and shape[2] == 6 and _is_end_to_end(graph, output, shape, size)):
        if shape[2] not in (0, 6):
            raise InputError(f"model.layout: {output} {_text(shape)} is not end_to_end: the last axis is not 6")
        dense = dense_head(graph)
        found = dense.classes if dense else 0
        if names and found and len(names) != found:
            raise InputError(f"{output} has {found} classes but there are {len(names)} class names")
        return DetectorContract(size, END_TO_END, names, len(names) or found, output, index)
    parts = channel_parts(graph, output)
    transposed = _is_transposed(shape, parts, size, len(names))
    channels, anchors = (shape[2], shape[1]) if transposed else (shape[1], shape[2])
    if channels == 0:
        channels = parts.boxes + parts.classes if parts else 0
    if channels < 5:
        raise InputError(f"{output} has {channels or 'an open number of'} channels, fewer than 4 + 1 class")
    strides = anchor_strides(anchors, size) if anchors else _default_strides(graph)
    chosen, count = _layout_and_classes(output, channels, parts, layout, len(names), bool(strides))
    if names and len(names) != count:
        raise InputError(f"{output} has {count} classes but there are {len(names)} class names; set model.classes")
    if chosen == SCORES:
        return DetectorContract(size, SCORES, names, count, output, index, transposed)
    if not strides:
        raise InputError(f"{output} has {anchors} anchors, which no usual strides give for {size[0]} x {size[1]}")
    return DetectorContract(
        size, RAW, names, count, output, index, transposed, reg_max=(channels - count) // 4, strides=strides
    )


def _layout_and_classes(
    output: str, channels: int, parts: ChannelParts | None, layout: str | None, named: int, on_grid: bool
) -> tuple[str, int]:
    """Returns layout and number of classes: from the structure where it is plain, else from the names."""
    count = parts.classes if parts else 0
    if layout is None:
        if parts is not None and (parts.boxes == 4 or not parts.sigmoid):
            layout = SCORES if parts.sigmoid else RAW
        elif named and channels == 4 + named:
            layout = SCORES
        elif named and channels > 4 + named and (channels - named) % 4 == 0:
            layout = RAW
        else:
            raise InputError(f"{output}: neither the structure nor class names tell boxes from classes")
        if layout == SCORES and not on_grid:
            raise InputError(f"{output}: its rows are not on an anchor grid")
    if layout == SCORES:
        return SCORES, channels - 4
    count = count or named or channels - 4 * _DEFAULT_REG_MAX
    if count < 1 or channels - count < 4 or (channels - count) % 4:
        raise InputError(f"{output}: {channels} channels are not 4 x bins + {count} classes; set model.classes")
    return RAW, count


def _is_end_to_end(graph: ModelGraph, output: str, shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Tells (N, k, 6) from a transposed two-class `scores` output, (N, anchors, 4 + 2)."""
    if shape[1] == 0 or not anchor_strides(shape[1], size):
        return True
    parts = channel_parts(graph, output)
    return parts is None or parts.boxes + parts.classes != 6


def _is_transposed(shape: tuple[int, ...], parts: ChannelParts | None, size: tuple[int, int], named: int) -> bool:
    """Whether channels are the last axis: by the structure, else the class names, else the anchor grid."""
    counts = [parts.boxes + parts.classes] if parts is not None else []
    counts += [4 + named] if named else []
    for count in counts:
        if count in shape[1:] and shape[1] != shape[2]:
            return shape[2] == count
    return bool(shape[1] and anchor_strides(shape[1], size) and not anchor_strides(shape[2], size))


def _image_size(graph: ModelGraph, given: tuple[int, int] | None) -> tuple[int, int]:
    shape = graph.input_shape
    if len(shape) != 4 or shape[1] != 3:
        raise InputError(
            f"{graph.path}: is not a detector of colour images: input {graph.input} is {_text(shape)}, not (N, 3, H, W)"
        )
    if given is not None and (len(given) != 2 or min(given) < 32):
        raise InputError(f"model.image_size: {list(given)} must be height and width, each at least 32")
    fixed = (shape[2], shape[3])
    wanted = given or _metadata_size(graph)
    height, width = (have or want for have, want in zip(fixed, wanted or (0, 0), strict=True))
    if given is not None and (height, width) != tuple(given):
        raise InputError(f"model.image_size: {list(given)} but the model takes {list(fixed)} only; leave it out")
    if max(height, width) > LARGEST_SIDE or min(height, width) < 0:
        raise InputError(
            f"{graph.path}: takes images of {height} x {width}; a side may have 1 to {LARGEST_SIDE} pixels, "
            "set model.image_size"
        )
    if not height or not width:
        raise InputError(f"{graph.path}: the input leaves height and width open; set model.image_size: [640, 640]")
    return height, width


def _metadata_size(graph: ModelGraph) -> tuple[int, int] | None:
    found = literal(graph.metadata.get("imgsz", "None"))
    if not isinstance(found, (list, tuple)) or len(found) != 2 or not all(isinstance(size, int) for size in found):
        return None
    height, width = found
    return int(height), int(width)


def _class_names(graph: ModelGraph, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        names = tuple(given)
    else:
        found = graph.class_names
        names = tuple(found[index] for index in sorted(found)) if sorted(found) == list(range(len(found))) else ()
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"model.classes: {doubled[0]!r} occurs more than once; class names must differ")
    return names


def _default_strides(graph: ModelGraph) -> tuple[int, ...]:
    last = graph.metadata.get("stride", "32")
    return next((strides for strides in _STRIDES if str(strides[-1]) == last), _STRIDES[0])


def _text(shape: Sequence[int]) -> str:
    return "(" + ", ".join(str(size) if size else "?" for size in shape) + ")"
