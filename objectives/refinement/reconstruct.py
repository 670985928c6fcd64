"""Block reconstruction: each block's numbers are learnt for its own output, given what the blocks before it leave.

Sources: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021; of
activations that are quantized at random only, Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit
Post-Training Quantization", 2022. Codes move by straight-through gradients from where GPTQ left them, as in Chen et
al., "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", 2024.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.refinement.blocks import Block
from objectives.refinement.executor import Executor
from objectives.refinement.judge import Images
from objectives.refinement.student import Student
from objectives.refinement.training import Deadline, learn

_DROP = 0.5  # of activations: how many are left unquantized, and of inputs: how many come from the unquantized model

Known = dict[str, list[Tensor]]  # by tensor, of each image
BlockLoss = Callable[[Block, dict[str, Tensor], dict[str, Tensor]], Tensor]


class Steps(Protocol):
    """What of the settings of a refinement this needs."""

    @property
    def block_steps(self) -> int:
        """Of one block, at most."""

    @property
    def block_batch(self) -> int:
        """Images of a step."""

    @property
    def block_rate(self) -> float:
        """Factor of the learning rates."""

    @property
    def seed(self) -> int:
        """Of what is drawn."""


def reconstruct(
    executor: Executor,
    student: Student,
    blocks: Sequence[Block],
    image: Images,
    learning: Sequence[int],
    steps: Steps,
    deadline: Deadline,
    loss: BlockLoss,
    progress: Callable[[str], None],
) -> None:
    """Learns block by block.

    Args:
        executor: Runs the model.
        student: Learns.
        blocks: Of the model, in order.
        image: Gives one image, ``(1, 3, H, W)``, by its number.
        learning: Numbers of the images that are learnt on.
        steps: How many of each block.
        deadline: Of all; a block gets the share of its layers.
        loss: Of a block's outputs, found and wanted.
        progress: Called with a line behind each block.
    """
    draw = np.random.default_rng(steps.seed)
    torch.manual_seed(steps.seed)
    exact: Known = {executor.graph.input: [image(number) for number in learning]}
    left = exact.copy()
    waiting = sum(len(block.layers) for block in blocks)
    begun, learning_took = time.monotonic(), 0.0
    for number, block in enumerate(blocks):
        wanted = _forward(executor, block, exact, None)
        if block.layers:
            # The blocks behind must pass all images too: without time kept for it, the last ones would learn nothing.
            passing = (time.monotonic() - begun - learning_took) / (number + 1) * (len(blocks) - number)
            seconds = deadline.left - min(passing, 0.5 * deadline.left)
            bound = Deadline.after(seconds * len(block.layers) / waiting)
            waiting -= len(block.layers)
            task = _Task(
                executor, student, block, exact, left, wanted, draw, min(steps.block_batch, len(learning)), loss
            )
            student.drop = _DROP
            started = time.monotonic()
            made = learn(
                student.groups(block.layers, task.inside), task.step, steps.block_steps, bound, steps.block_rate
            )
            learning_took += time.monotonic() - started
            student.drop = 0.0
            progress(f"block {number + 1} of {len(blocks)}: {made} steps")
        passed = _forward(executor, block, left, student)
        needed = {name for later in blocks[number + 1 :] for name in later.inputs}
        exact = {name: value for name, value in {**exact, **wanted}.items() if name in needed}
        left = {name: value for name, value in {**left, **passed}.items() if name in needed}


@dataclass(frozen=True)
class _Task:
    """One block to learn: what it is given by the unquantized model and by the student, and what it should make."""

    executor: Executor
    student: Student
    block: Block
    exact: Known
    left: Known
    wanted: Known
    draw: np.random.Generator
    count: int
    loss: BlockLoss

    @property
    def inside(self) -> set[str]:
        """The tensors that the block reads by itself."""
        block = self.block
        return {*block.inputs, *(name for node in block.nodes for name in node.outputs)} - set(block.outputs)

    def step(self, _: int) -> list[Tensor]:
        """The loss of some images, whose inputs are partly the unquantized model's."""
        rows = self.draw.choice(len(next(iter(self.wanted.values()))), self.count, replace=False)
        given = {}
        for name in self.block.inputs:
            given[name] = self._stacked(self.left[name], rows)
            if self.left[name] is not self.exact[name]:
                drawn = torch.rand_like(given[name]) < _DROP
                given[name] = torch.where(drawn, self._stacked(self.exact[name], rows), given[name])
        found = self.executor.run(self.block.nodes, given, self.block.outputs, self.student.read)
        wanted = {name: self._stacked(values, rows) for name, values in self.wanted.items()}
        return [self.loss(self.block, found, wanted)]

    def _stacked(self, values: Sequence[Tensor], rows: NDArray[np.intp]) -> Tensor:
        return torch.cat([values[row].to(self.executor.device).float() for row in rows])


def _forward(executor: Executor, block: Block, known: Known, student: Student | None) -> Known:
    """A block's outputs on all images, in half precision where that can hold them."""
    found: Known = {name: [] for name in block.outputs}
    count = len(next(iter(known.values()))) if known else 0
    with torch.no_grad():
        for place in range(count):
            given = {name: known[name][place].to(executor.device).float() for name in block.inputs}
            made = executor.run(block.nodes, given, block.outputs, student.read if student is not None else None)
            for name, value in made.items():
                half = value.half()
                found[name].append(half if bool(torch.isfinite(half).all()) else value)
    return found
