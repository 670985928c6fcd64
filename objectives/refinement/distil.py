"""Distillation: all numbers of a scheme are learnt at once, for what the unquantized model says on unlabelled images.

Source of the idea: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. The model is its own teacher,
so every block's output is compared as well. That an average over steps is judged is from Gupta and Asthana, "Reducing
the Side-Effects of Oscillations in Training of Quantized YOLO Networks", 2024.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from objectives.refinement.augment import augmented
from objectives.refinement.executor import Executor, Node
from objectives.refinement.gradients import Tensors
from objectives.refinement.judge import Images, Judge
from objectives.refinement.losses import Layout, distance, feature_loss
from objectives.refinement.student import Student
from objectives.refinement.training import Deadline, learn

_FEATURES = 30.0  # the weight of the blocks' outputs, of their mean
_JUDGEMENTS = 20
_AT_ONCE = 8  # images of a step whose memory is held at once: with more YOLOv10s would take over 6 GiB
_APART = 8  # steps, of which one is averaged, once there are many
_AVERAGED = 0.1  # of the steps so far are in the average that is judged: codes swing to and fro at their edges


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
    at_once = _AT_ONCE * (2 if executor.half else 1) // (4 if student.placement.pairs else 1)
    best, kept = judge(student), student.state()
    learnt = nn.ParameterList(student.parameters())
    average = AveragedModel(learnt, avg_fn=lambda mean, new, n: torch.lerp(mean, new, 1 / (1 + _AVERAGED * int(n))))
    asked = time.monotonic()

    def drawn() -> Tensors:
        rows = draw.choice(len(learning), count, replace=False)
        whole = augmented(torch.cat([image(learning[row]) for row in rows]), generator)
        return {source: whole.contiguous(memory_format=torch.channels_last)}

    def parts(given: Tensors) -> Iterator[Tensor]:
        for images in given[source].split(at_once):
            yield len(images) / count * loss_of(images)

    def loss_of(images: Tensor) -> Tensor:
        with executor.autocast():
            with torch.no_grad():
                wanted = executor.run(part.nodes, {source: images}, names)
            found = executor.run(part.nodes, {source: images}, names, student.read)
        loss = distance([found[n] for n in part.last], [wanted[n] for n in part.last], part.layout)
        if part.between:
            loss = loss + _FEATURES / len(part.between) * feature_loss(found, {n: wanted[n] for n in part.between})
        return loss

    def judged() -> float:
        """Judges the average, and keeps it where it is the best so far."""
        nonlocal best, kept
        now = student.state()
        student.restore([parameter.detach() for parameter in average.module])
        found = judge(student)
        if found < best:
            best, kept = found, student.state()
        student.restore(now)
        return found

    def after(number: int) -> None:
        nonlocal asked
        if number < _APART**2 or number % _APART == 0:
            average.update_parameters(learnt)
        late = time.monotonic() - asked > deadline.whole / _JUDGEMENTS
        if late or (number + 1) % max(1, steps.steps // _JUDGEMENTS) == 0:
            found, asked = judged(), time.monotonic()
            progress(f"step {number + 1}: {found:.4f}")

    tensors = {source, *(name for node in part.nodes for name in node.outputs)}
    groups = student.groups(list(student.weights), tensors)
    learn(groups, drawn, parts, steps.steps, deadline, steps.rate, after, executor.half)
    judged()
    student.restore(kept)
    return best
