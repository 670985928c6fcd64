"""`objectives.quantization.gptq` in PyTorch, for a GPU: the same sums, factors, codes and scales, within rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.gptq import DAMPING, LEAF
from objectives.quantization.grid import round_codes
from objectives.quantization.scales import Sharing, search
from search_spaces.errors import InputError
from search_spaces.formats import NumberSpec

try:
    import torch
except ImportError:
    raise InputError("weights.device: needs PyTorch; pip install '.[torch]', or choose cpu") from None


def check_device(device: str) -> None:
    """Checks that PyTorch reaches a device.

    Raises:
        InputError: It does not.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"weights.device: {device!r} is not there ({reason}); choose cpu") from None


class TorchMoments:
    """Running sums over the columns that a layer reads.

    Args:
        device: A PyTorch device.
        groups: Convolution groups.
        width: K, the elements of one column.
    """

    def __init__(self, device: str, groups: int, width: int) -> None:
        self._second = torch.zeros((groups, width, width), dtype=torch.float32, device=device)
        self._first = torch.zeros((groups, width), dtype=torch.float64, device=device)
        self._count = 0

    def add(self, columns: NDArray[np.float32]) -> None:
        """Adds columns ``(groups, positions, K)``."""
        values = torch.from_numpy(np.ascontiguousarray(columns)).to(self._second.device)
        self._second.baddbmm_(values.transpose(1, 2), values)
        self._first += values.sum(dim=1, dtype=torch.float64)
        self._count += columns.shape[1]

    @property
    def finite(self) -> bool:
        """Whether every input was."""
        return bool(torch.isfinite(self._second).all())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean column, ``(groups, K)``."""
        return np.asarray((self._first / self._count).cpu().numpy())

    def activity(self, centred: bool) -> TorchActivity:
        """The second moments, about the mean or about 0, ordered and factored."""
        hessian = self._second.double() / self._count
        if centred:
            mean = self._first / self._count
            hessian -= mean[:, :, None] * mean[:, None, :]
        return TorchActivity.of(hessian)


@dataclass(frozen=True)
class TorchActivity:
    """What the inputs of a layer say about its weight; tensors as the arrays of `gptq.Activity`."""

    hessian: torch.Tensor
    order: torch.Tensor
    feedback: torch.Tensor
    pivots: torch.Tensor

    @staticmethod
    def of(hessian: torch.Tensor) -> TorchActivity:
        """Orders and factors second moments."""
        order = torch.argsort(hessian.diagonal(dim1=1, dim2=2), dim=1, descending=True, stable=True)
        rows = hessian.gather(1, order[:, :, None].expand_as(hessian))
        feedback, squares = _feedback(rows.gather(2, order[:, None, :].expand_as(hessian)))
        pivots = torch.empty_like(squares).scatter_(1, order, squares)
        return TorchActivity(hessian.float(), order, feedback, pivots.float())

    def feed_back(self, weight: torch.Tensor, step: torch.Tensor, number: NumberSpec) -> torch.Tensor:
        """Codes as of `gptq.Activity.feed_back`: tensors ``(groups, K, rows)``."""
        order = self.order[:, :, None].expand_as(weight)
        rest = weight.double().gather(1, order)
        steps = step.double().gather(1, order)
        moved, codes = torch.zeros_like(rest), torch.empty_like(weight)

        def round_columns(begin: int, end: int) -> None:
            if end - begin > LEAF:
                middle = (begin + end) // 2
                round_columns(begin, middle)
                moved[:, middle:end] += self.feedback[:, begin:middle, middle:end].mT @ rest[:, begin:middle]
                round_columns(middle, end)
                return
            for index in range(begin, end):
                code = round_codes(torch, (rest[:, index] + moved[:, index]) / steps[:, index], number)
                codes[:, index] = code
                rest[:, index] -= code * steps[:, index]
                moved[:, index + 1 : end] += self.feedback[:, index, index + 1 : end, None] * rest[:, index, None]

        round_columns(0, rest.shape[1])
        return torch.empty_like(codes).scatter_(1, order, codes)

    def search(
        self, weight: NDArray[np.float32], scale: NDArray[np.float32], sharing: Sharing, number: NumberSpec
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Chooses codes and scales as `gptq.Activity.search` does, arrays of the same shapes."""
        codes, found = search(torch, self._columns(weight), self._columns(scale), sharing, number, self)
        return _rows(codes), _rows(found)

    def _columns(self, rows: NDArray[np.float32]) -> torch.Tensor:
        return torch.tensor(rows, device=self.hessian.device).transpose(1, 2).contiguous()


def _rows(columns: torch.Tensor) -> NDArray[Any]:
    return np.asarray(columns.transpose(1, 2).cpu().numpy())


def _feedback(hessian: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1, keepdim=True)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    damping = DAMPING
    while True:
        extra = torch.where(diagonal > 0, damping * mean, (max(1.0, damping / DAMPING) * mean).expand_as(diagonal))
        factor, failed = torch.linalg.cholesky_ex((hessian + torch.diag_embed(extra)).flip(1, 2))
        if not failed.any():
            flipped = factor.flip(1, 2)
            pivots = flipped.diagonal(dim1=1, dim2=2)
            upper: torch.Tensor = flipped / pivots[:, None, :]
            if torch.isfinite(upper).all():
                return upper, pivots.square()
        damping *= 10  # as in NumPy: until the factor exists
