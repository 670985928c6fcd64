"""The grid of anchors: one per cell of each pyramid level."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.model_graph import ModelGraph

Float = NDArray[np.float32]

#: Sets of strides that detectors have, the usual one first.
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


def anchor_strides(anchors: int, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Returns the strides whose cells over the image add up to `anchors`; empty where no usual set does."""
    for strides in _STRIDES:
        if sum(cells(image_size, stride)[0] * cells(image_size, stride)[1] for stride in strides) == anchors:
            return strides
    return ()


def default_strides(graph: ModelGraph) -> tuple[int, ...]:
    """The usual strides up to the largest, which Ultralytics writes into the metadata."""
    last = graph.metadata.get("stride", "32")
    return next((strides for strides in _STRIDES if str(strides[-1]) == last), _STRIDES[0])


def cells(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of anchor cells at one stride."""
    return -(-image_size[0] // stride), -(-image_size[1] // stride)


@lru_cache(maxsize=16)
def anchor_points(image_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Float, Float]:
    """Centres (anchors, 2) and strides (anchors,) of all anchors, input pixels, level by level, by rows."""
    centres, steps = [], []
    for stride in strides:
        rows, columns = cells(image_size, stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centres.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(np.full(rows * columns, stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(steps).astype(np.float32)
