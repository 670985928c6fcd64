"""How far a student is from the unquantized model on images that nothing is learnt on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.refinement.executor import Executor, Values
from objectives.refinement.losses import Layout, distance, layout_of
from objectives.refinement.student import Student
from objectives.sensitivity.divergence import divergence, targets
from objectives.tasks.detection.detector import Detector

Images = Callable[[int], Tensor]


class Judge:
    """Compares by the divergence that ranks sensitivities; where a model has no dense outputs, by its last layers.

    Args:
        executor: Runs the model.
        detector: How to read it.
        image: Gives one image, ``(1, 3, H, W)``, by its number.
        held: Numbers of the images to judge by.
        last: The tensors of the last layers.

    Raises:
        InputError: The executor does not compute what ONNX Runtime does.

    Attributes:
        layout: Of those tensors.
    """

    def __init__(
        self, executor: Executor, detector: Detector, image: Images, held: Sequence[int], last: Sequence[str]
    ) -> None:
        self._executor, self._image, self._held, self._last = executor, image, held, last
        self._dense = detector.dense(executor.graph)
        tensors = self._dense.tensors if self._dense is not None else ()
        self._names = tuple(dict.fromkeys((*tensors, *last)))
        self._nodes = executor.nodes(self._names, [executor.graph.input])
        executor.check(self._nodes, self._names, image(held[0]))
        exact = [self._outputs(number, None) for number in held]
        self._ends = [[one[name] for name in last] for one in exact]
        self._targets = [targets(self._dense, self._arrays(one)) for one in exact] if self._dense is not None else []
        self.layout: Layout = layout_of(self._dense, self._arrays(exact[0]), self._ends[0])

    def __call__(self, student: Student) -> float:
        """The divergence; 0 for the unquantized model, infinite where the student's numbers are."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in student.parameters()):
            return math.inf
        found = [self._outputs(number, student) for number in self._held]
        if self._dense is not None:
            return divergence(self._dense, [self._arrays(one) for one in found], self._targets)
        ends = ([one[name] for name in self._last] for one in found)
        pairs = zip(ends, self._ends, strict=True)
        return float(np.mean([float(distance(own, wanted, self.layout)) for own, wanted in pairs]))

    def _outputs(self, number: int, student: Student | None) -> Values:
        with torch.no_grad():
            values = {self._executor.graph.input: self._image(number)}
            return self._executor.run(self._nodes, values, self._names, student.read if student is not None else None)

    def _arrays(self, found: Values) -> list[NDArray[np.generic]]:
        return [found[name].cpu().numpy() for name in self._dense.tensors] if self._dense is not None else []
