"""One run of Adam over some of a student's numbers, bounded in steps and in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.refinement.gradients import Gradients, Tensors
from objectives.refinement.student import Group

#: Adam's step by kind: of codes in codes, of scales and ranges as shares, of biases in the layer's mean bias.
RATES = {"codes": 4e-3, "scales": 1e-3, "biases": 2e-3, "ranges": 1e-3}
_WARMUP = 0.1


@dataclass(frozen=True)
class Deadline:
    """When work must end.

    Attributes:
        at: By `time.monotonic`.
        whole: Seconds that there were.
    """

    at: float
    whole: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        """That many seconds from now."""
        return Deadline(time.monotonic() + seconds, seconds)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.at - time.monotonic()


def learn(
    groups: Sequence[Group],
    draw: Callable[[], Tensors],
    loss: Callable[[Tensors], Iterable[Tensor]],
    steps: int,
    deadline: Deadline,
    rate: float = 1.0,
    after: Callable[[int], None] | None = None,
    half: bool = False,
) -> int:
    """Makes a loss small.

    The rate grows over the first tenth and falls along a cosine; as it falls by the share of the time too, a run that
    the deadline ends has cooled down all the same.

    Args:
        groups: What is learnt.
        draw: Gives the tensors of a step.
        loss: Of those, in parts that are added, as `Gradients` takes it.
        steps: At most.
        deadline: Ends it.
        rate: Factor of `RATES`.
        after: Called behind each step.
        half: Whether the loss is computed in half precision: its gradients are scaled to what that holds.

    Returns:
        Steps that were made.
    """
    kept = [group for group in groups if group.parameters]
    if not kept:
        return 0
    optimizer = torch.optim.Adam(
        [{"params": group.parameters, "lr": 0.0, "kind": group.kind} for group in kept], betas=(0.9, 0.99)
    )
    scaler = torch.amp.GradScaler(enabled=half)
    gradients = Gradients([one for group in kept for one in group.parameters], loss, scaler, half)
    begun = time.monotonic()
    for step in range(steps):
        spent = (time.monotonic() - begun) / max(deadline.at - begun, 1e-9)
        share = max(step / steps, min(spent, 1.0))
        if share >= 1.0:
            return step
        factor = rate * min(1.0, (share + 1 / steps) / _WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
        for entry in optimizer.param_groups:
            entry["lr"] = factor * RATES[entry["kind"]]
        gradients(draw())
        scaler.step(optimizer)
        scaler.update()
        if after is not None:
            after(step)
    return steps
