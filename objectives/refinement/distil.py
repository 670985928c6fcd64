"""Distillation: all numbers of a scheme are learnt at once, for what the unquantized model says on unlabelled images.

Source of the idea: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. The model is its own teacher,
so every block's output is compared as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from objectives.refinement.executor import Executor, Node
from objectives.refinement.judge import Images, Judge
from objectives.refinement.losses import Layout, distance, feature_loss
from objectives.refinement.student import Student
from objectives.refinement.training import Deadline, learn

_FEATURES = 0.5  # of the loss is the blocks' outputs', by their number
_JUDGEMENTS = 20
_AT_ONCE = 8  # images of a step: YOLOv10s' 16 at 640 px would take 9 GiB
_SIZES = (0.6, 1.3)  # of an image, drawn: the few images there are stand for many


@dataclass(frozen=True)
class Part:
    """What of a model is run.

    Attributes:
        nodes: In order.
        last: Tensors of its last layers.
        between: Tensors between its blocks.
        layout: Of `last`.
    """

    nodes: Sequence[Node]
    last: tuple[str, ...]
    between: tuple[str, ...]
    layout: Layout


class Steps(Protocol):
    """What of the settings of a refinement this needs."""

    @property
    def steps(self) -> int:
        """At most."""

    @property
    def batch(self) -> int:
        """Images of a step."""

    @property
    def rate(self) -> float:
        """Factor of the learning rates."""

    @property
    def seed(self) -> int:
        """Of what is drawn."""


def distil(
    executor: Executor,
    student: Student,
    part: Part,
    image: Images,
    learning: Sequence[int],
    steps: Steps,
    deadline: Deadline,
    judge: Judge,
    progress: Callable[[str], None],
) -> float:
    """Learns, and ends with what was best on images that nothing was learnt on.

    Args:
        executor: Runs the model.
        student: Learns.
        part: Of the model.
        image: Gives one image, ``(1, 3, H, W)``, by its number.
        learning: Numbers of the images that are learnt on.
        steps: How many.
        deadline: Of all.
        judge: Tells how far the student is from the unquantized model.
        progress: Called with a line behind each judgement.

    Returns:
        The best judgement.
    """
    draw = np.random.default_rng(steps.seed)
    generator = torch.Generator().manual_seed(steps.seed)
    torch.manual_seed(steps.seed)
    names, source = (*part.between, *part.last), executor.graph.input
    count = min(steps.batch, len(learning))
    best, kept = judge(student), student.state()
    asked = time.monotonic()

    def step(_: int) -> Iterator[Tensor]:
        rows = draw.choice(len(learning), count, replace=False)
        whole = varied(torch.cat([image(learning[row]) for row in rows]), generator)
        for images in whole.split(_AT_ONCE):
            yield len(images) / count * loss_of(images)

    def loss_of(images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = executor.run(part.nodes, {source: images}, names)
        found = executor.run(part.nodes, {source: images}, names, student.read)
        loss = distance([found[n] for n in part.last], [wanted[n] for n in part.last], part.layout)
        if part.between:
            loss = loss + _FEATURES / len(part.between) * feature_loss(found, {n: wanted[n] for n in part.between})
        return loss

    def after(number: int) -> None:
        nonlocal best, kept, asked
        late = time.monotonic() - asked > deadline.whole / _JUDGEMENTS
        if not late and (number + 1) % max(1, steps.steps // _JUDGEMENTS):
            return
        found, asked = judge(student), time.monotonic()
        progress(f"step {number + 1}: {found:.4f}")
        if found < best:
            best, kept = found, student.state()

    tensors = {source, *(name for node in part.nodes for name in node.outputs)}
    learn(student.groups(list(student.weights), tensors), step, steps.steps, deadline, steps.rate, after)
    found = judge(student)
    if found < best:
        return found
    student.restore(kept)
    return best


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images mirrored, moved and scaled at random, what is uncovered in their mean grey."""
    count = len(images)
    size = _SIZES[0] + (_SIZES[1] - _SIZES[0]) * torch.rand(count, generator=generator)
    mirrored = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    moved = 0.4 * torch.rand(count, 2, generator=generator) - 0.2
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = mirrored / size, 1 / size, moved / size[:, None]
    grid = functional.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
    grey = images.mean()
    return functional.grid_sample(images - grey, grid, align_corners=False) + grey
