"""Block reconstruction: each block's numbers are learnt for its own output, given what the blocks before it leave.

Sources: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021; of
activations that are quantized at random only, Wei et al., "QDrop: Randomly Dropping Quantization for Extremely Low-bit
Post-Training Quantization", 2022. Codes move by straight-through gradients from where GPTQ left them, as in Chen et
al., "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", 2024.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from objectives.refinement.blocks import Block
from objectives.refinement.executor import Executor
from objectives.refinement.gradients import Tensors
from objectives.refinement.judge import Images
from objectives.refinement.student import Student
from objectives.refinement.training import Deadline, learn

_DROP = 0.5  # of activations: how many are left unquantized, and of inputs: how many come from the unquantized model

_AT_ONCE = 8  # images that pass a block
_WANTED = "wanted "  # before the names of what a block should make
Known = dict[str, Tensor]  # by tensor, of all images
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
    exact: Known = {executor.graph.input: torch.cat([image(number) for number in learning])}
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
                student.groups(block.layers, task.inside),
                task.drawn,
                task.parts,
                steps.block_steps,
                bound,
                steps.block_rate,
                half=executor.half,
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

    def drawn(self) -> Tensors:
        """Some images' inputs, partly the unquantized model's, and what should be made of them."""
        count = len(next(iter(self.wanted.values())))
        rows = torch.from_numpy(self.draw.choice(count, self.count, replace=False)).to(self.executor.device)
        given = {}
        for name in self.block.inputs:
            given[name] = self.left[name][rows].float()
            if self.left[name] is not self.exact[name]:
                taken = torch.rand_like(given[name]) < _DROP
                given[name] = torch.where(taken, self.exact[name][rows].float(), given[name])
        return given | {f"{_WANTED}{name}": values[rows] for name, values in self.wanted.items()}

    def parts(self, given: Tensors) -> Iterator[Tensor]:
        """The loss."""
        inputs = {name: given[name] for name in self.block.inputs}
        with self.executor.autocast():
            found = self.executor.run(self.block.nodes, inputs, self.block.outputs, self.student.read)
        yield self.loss(self.block, found, {name: given[f"{_WANTED}{name}"] for name in self.wanted})


def _forward(executor: Executor, block: Block, known: Known, student: Student | None) -> Known:
    """A block's outputs on all images, in half precision where that can hold them."""
    found: Known = {}
    count = len(next(iter(known.values()))) if known else 0
    with torch.no_grad(), executor.autocast():
        for begin in range(0, count, _AT_ONCE):
            given = {name: known[name][begin : begin + _AT_ONCE].float() for name in block.inputs}
            made = executor.run(block.nodes, given, block.outputs, student.read if student is not None else None)
            for name, value in made.items():
                whole = found.setdefault(
                    name, torch.empty(count, *value.shape[1:], dtype=torch.half, device=value.device)
                )
                half = value.half()
                if not bool(torch.isfinite(half).all()):
                    whole = found[name] = whole.float()
                whole[begin : begin + len(value)] = value
    return found
