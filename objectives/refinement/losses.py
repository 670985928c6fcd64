"""What learning makes small: differences inside the model, and of what its last layers say of each anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from objectives.tasks.detection.heads.head import DenseOutputs

_FLOOR = 0.01  # of an anchor's say, so that no anchor may say anything
_ALIKE = 1e-3


def feature_loss(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """Squared error of each tensor as a share of its variance, summed over the tensors."""
    pairs = [(found[name].float(), value.float()) for name, value in wanted.items()]
    parts = [(own - value).square().mean() / (value.var() + 1e-12) for own, value in pairs]
    return torch.stack(parts).sum()


@dataclass(frozen=True)
class Layout:
    """What the tensors of the last layers are to each other.

    Attributes:
        classes: Per tensor whether it holds the logits of the class probabilities.
        scores: Per tensor the place of the class logits of the same anchors; None where nothing tells.
    """

    classes: tuple[bool, ...]
    scores: tuple[int | None, ...]


def layout_of(dense: DenseOutputs | None, outputs: Sequence[NDArray[np.generic]], last: Sequence[Tensor]) -> Layout:
    """Finds the class logits among the last layers' tensors of one image: by their values, whatever the head.

    Args:
        dense: How the model's dense outputs are read; None where they cannot be.
        outputs: Of the unquantized model.
        last: The tensors, ``(1, channels, H, W)`` of a level's map or ``(1, anchors, channels)``.
    """
    classes = [False] * len(last)
    if dense is not None:
        probabilities = torch.from_numpy(np.ascontiguousarray(dense.probabilities(outputs), np.float32))
        flat = [
            value.cpu().sigmoid().flatten(2)[0] if value.ndim == 4 else value.cpu().sigmoid()[0].T for value in last
        ]
        begin = 0
        for place, value in enumerate(flat):  # levels side by side are all anchors
            part = probabilities[:, begin : begin + value.shape[-1]]
            if value.shape == part.shape and bool((value - part).abs().max() < _ALIKE):
                classes[place] = True
                begin += value.shape[-1]
    rows = [tuple(value.shape[2:]) if value.ndim == 4 else tuple(value.shape[:2]) for value in last]
    scores = [next((k for k, same in enumerate(classes) if same and rows[k] == row), None) for row in rows]
    return Layout(tuple(classes), tuple(scores))


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor], layout: Layout) -> Tensor:
    """How far the last layers' tensors of some images are from the unquantized model's.

    Of class logits the Kullback-Leibler divergence of their Bernoulli probabilities, per detection. Of others the
    squared error as a share of the variance, where anchors count as much as the unquantized model detects there.
    """
    total = torch.zeros((), device=found[0].device)
    found, wanted = [value.float() for value in found], [value.float() for value in wanted]
    for place, (value, target) in enumerate(zip(found, wanted, strict=True)):
        axis = 1 if target.ndim == 4 else -1
        if layout.classes[place]:
            probability = target.sigmoid()
            own = functional.binary_cross_entropy_with_logits(target, probability, reduction="sum")
            loss = functional.binary_cross_entropy_with_logits(value, probability, reduction="sum") - own
            total = total + loss / (probability.amax(axis).sum() + 1.0)
            continue
        weights = torch.ones_like(target)
        scores = layout.scores[place]
        if scores is not None:
            weights = (wanted[scores].sigmoid().amax(axis, keepdim=True) + _FLOOR).expand_as(target)
        weights = weights / weights.mean()
        spread = (weights * (target - (weights * target).mean()).square()).mean() + 1e-12
        total = total + (weights * (value - target).square()).mean() / spread
    return total
