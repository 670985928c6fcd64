"""Refines one scheme: block by block, then as a whole, judged on images that nothing was learnt on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from objectives.quantization.materialize import Materializer
from objectives.quantization.refined import Refined
from objectives.quantization.weights import WeightSettings
from objectives.refinement.blocks import Block, split_blocks
from objectives.refinement.distil import Part, distil
from objectives.refinement.executor import Executor, fused
from objectives.refinement.judge import Judge
from objectives.refinement.losses import distance, feature_loss
from objectives.refinement.reconstruct import reconstruct
from objectives.refinement.student import Student
from objectives.refinement.training import Deadline
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph

LEAST_IMAGES = 8
_HELD = 8  # of so many images one judges, and is not learnt on
_BLOCK_LAYERS = 8
_FINE, _SLOWLY = 8, 0.3  # where all weights have so many bits, little is lost and less is learnt at a time


@dataclass(frozen=True)
class RefinementSettings:
    """How a scheme is refined.

    Attributes:
        minutes: At most.
        device: ``cpu`` or another PyTorch device.
        seed: Of what is drawn.
        block_steps: Of one block, at most; 0: no blocks, which gained less than their time does in distillation.
        block_batch: Images of a step of a block.
        block_rate: Factor of the learning rates there.
        steps: Of distillation, at most; 0: none.
        batch: Images of a step of distillation.
        rate: Factor of the learning rates there.
        share: Of the time, for the blocks.
    """

    minutes: float = 30.0
    device: str = "cpu"
    seed: int = 0
    block_steps: int = 0
    block_batch: int = 8
    block_rate: float = 1.0
    steps: int = 5000
    batch: int = 16
    rate: float = 1.0
    share: float = 0.2


@dataclass(frozen=True)
class Stage:
    """What one stage came to.

    Attributes:
        name: ``reconstruction`` or ``distillation``.
        divergence: On the held-back images, from the unquantized model.
        seconds: Since the beginning.
        refined: The numbers.
    """

    name: str
    divergence: float
    seconds: float
    refined: Refined


@dataclass(frozen=True)
class Refinement:
    """What came of a refinement.

    Attributes:
        divergence: Of the scheme as it was, on the held-back images, from the unquantized model.
        stages: In order.
        learnt_on: Images.
        judged_on: Images.
    """

    divergence: float
    stages: tuple[Stage, ...]
    learnt_on: int
    judged_on: int

    @property
    def best(self) -> Stage | None:
        """The stage that ended nearest; None where none was nearer than the scheme as it was, which then stays."""
        nearer = [
            stage for stage in self.stages if stage.divergence < self.divergence
        ]  # none where learning went to NaN
        return min(nearer, key=lambda stage: stage.divergence, default=None)


def refine(
    materializer: Materializer,
    weights: WeightSettings,
    allocation: Allocation,
    detector: Detector,
    images: PreprocessedImages,
    settings: RefinementSettings,
    progress: Callable[[str], None] | None = None,
) -> Refinement:
    """Learns better numbers of a scheme against the unquantized model; its graph, formats and sizes stay.

    Args:
        materializer: Of the study, for one image; its numbers are where learning begins.
        weights: Its settings.
        allocation: The scheme.
        detector: How to read the model.
        images: Unlabelled; every eighth is held back to judge by.
        settings: How.
        progress: Called with a line on what is done.

    Raises:
        InputError: Too few images, an operator that is not known here, or a scheme that quantizes nothing.
    """
    started, deadline = time.monotonic(), Deadline.after(60 * settings.minutes)
    say = progress or (lambda line: None)
    if len(images) < LEAST_IMAGES:
        raise InputError(f"refinement: {len(images)} images are too few; give at least {LEAST_IMAGES}")
    graph = materializer.graph
    executor = Executor(graph, settings.device)
    student = Student(executor, materializer, allocation, weights)
    if not student.weights:
        raise InputError("refinement: the scheme quantizes no weight; choose another one")
    if min(weight.bits for weight in student.weights.values()) >= _FINE:
        settings = replace(settings, rate=_SLOWLY * settings.rate, block_rate=_SLOWLY * settings.block_rate)

    @cache
    def image(number: int) -> Tensor:
        return torch.from_numpy(images.batch(number, number + 1)).to(executor.device)

    held = list(range(_HELD - 1, len(images), _HELD))
    learning = [number for number in range(len(images)) if number not in held]
    last = last_tensors(graph)
    nodes = executor.nodes(last, [graph.input])
    judge = Judge(executor, detector, image, held, last)
    nodes = fused(nodes, last, student.apart)
    blocks = split_blocks(nodes, graph.input, last, list(student.weights), _BLOCK_LAYERS)
    first, start = judge(student), student.state()
    stages: list[Stage] = []
    say(f"divergence on {len(held)} held-back images {first:.4f}")

    def block_loss(block: Block, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        if not set(last) <= set(block.outputs):
            return feature_loss(found, wanted)
        return distance([found[name] for name in last], [wanted[name] for name in last], judge.layout)

    def ended(name: str, divergence: float) -> None:
        stages.append(Stage(name, divergence, time.monotonic() - started, student.refined()))
        say(f"after {name} {divergence:.4f}, {stages[-1].seconds:.0f} s")

    if settings.block_steps:
        bound = Deadline.after((settings.share if settings.steps else 1.0) * deadline.left)
        reconstruct(executor, student, blocks, image, learning, settings, bound, block_loss, say)
        found = judge(student)
        if not math.isfinite(found):  # what was learnt cannot even be stored
            student.restore(start)
        ended("reconstruction", found)
        if not found < first:
            student.restore(start)
    if settings.steps:
        between = tuple(name for block in blocks for name in block.outputs if name not in last)
        part = Part(nodes, last, between, judge.layout)
        ended("distillation", distil(executor, student, part, image, learning, settings, deadline, judge, say))
    return Refinement(first, tuple(stages), len(learning), len(held))


def last_tensors(graph: ModelGraph) -> tuple[str, ...]:
    """Outputs of the quantizable layers that no other layer reads, directly or through other operators."""
    above = {name for name, _ in graph.edges}
    return tuple(layer.output for layer in graph.quantizable if layer.name not in above)
