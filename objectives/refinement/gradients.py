"""The gradients of a step; on a GPU as one CUDA graph: its thousands of kernels take longer to launch than to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
_REHEARSALS = 3  # before a step can be recorded: libraries make their plans then


class Gradients:
    """Computes a loss and the gradients of parameters.

    Args:
        parameters: What is learnt.
        loss: Of tensors of a step, in parts that are added; each part's memory is freed before the next is asked for.
            Must do the same work at every step, on tensors of the same shapes.
        scaler: Of gradients in half precision.
        recorded: Whether the work is recorded once, and played back for every step; on a GPU alone.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        loss: Callable[[Tensors], Iterable[Tensor]],
        scaler: torch.amp.GradScaler,
        recorded: bool,
    ) -> None:
        self._parameters, self._loss, self._scaler, self._recorded = parameters, loss, scaler, recorded
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: Tensors = {}

    def __call__(self, given: Tensors) -> None:
        """Leaves the gradients in the parameters' ``grad``."""
        if self._recorded and self._graph is None:
            self._record(given)
        if self._graph is None:
            self._compute(given)
            return
        for name, value in given.items():
            self._given[name].copy_(value)
        self._graph.replay()

    def _compute(self, given: Tensors) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        for part in self._loss(given):
            self._scaler.scale(part).backward()

    def _record(self, given: Tensors) -> None:
        """Records a step; one with an operator that waits for the CPU cannot be, and is computed as it comes."""
        self._given = {name: value.clone() for name, value in given.items()}
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_REHEARSALS):
                self._compute(self._given)
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._compute(self._given)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._recorded = False
            return
        self._graph = graph
