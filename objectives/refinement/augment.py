"""Images made of images: the few there are stand for many, as the unquantized model answers for any.

That a student learns most from a patient teacher that sees what the student sees, mixed hard, is Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", 2022. Mixing is Zhang et al., "mixup: Beyond
Empirical Risk Minimization", 2018; four images in one Bochkovskiy et al., "YOLOv4", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SIZES = (0.5, 1.5)  # of an image
_MOVED = 0.2  # of its half side, at most, to either side
_TILED = 0.5  # of the images are made of four
_MIXED = 0.25  # of the images have another one shine through
_GAIN = 0.3  # of the contrast of a channel, and of its mean in deviations, at most, up or down


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images moved, tiled, mixed and coloured at random, ``(n, 3, H, W)``, whatever their normalisation."""
    return _coloured(_mixed(_tiled(_moved(images, generator), generator), generator), generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device; ``(n, 1, 1, 1)``."""
    drawn = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
    return drawn.to(device)


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored, moved and scaled, what is uncovered in their mean grey."""
    count = len(images)
    size = _SIZES[0] + (_SIZES[1] - _SIZES[0]) * torch.rand(count, generator=generator)
    mirrored = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    moved = _MOVED * (2 * torch.rand(count, 2, generator=generator) - 1)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = mirrored / size, 1 / size, moved / size[:, None]
    grid = functional.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
    grey = images.mean()
    return functional.grid_sample(images - grey, grid, align_corners=False) + grey


def _tiled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Some with three of their quarters from other images, which keep their places."""
    count, (height, width), device = len(images), images.shape[2:], images.device
    whole = _uniform(count, 0, 1, generator, device) >= _TILED
    down = torch.arange(height, device=device).reshape(1, 1, -1, 1) >= height * _uniform(
        count, 0.25, 0.75, generator, device
    )
    right = torch.arange(width, device=device).reshape(1, 1, 1, -1) >= width * _uniform(
        count, 0.25, 0.75, generator, device
    )
    found = images
    for quarter in (down & right, down & ~right, ~down & right):
        others = images[torch.randperm(count, generator=generator).to(device)]
        found = torch.where(quarter & ~whole, others, found)
    return found


def _mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Some with another image shining through."""
    count, device = len(images), images.device
    share = _uniform(count, 0, 0.5, generator, device)
    share = torch.where(_uniform(count, 0, 1, generator, device) < _MIXED, share, torch.zeros_like(share))
    return torch.lerp(images, images[torch.randperm(count, generator=generator).to(device)], share)


def _coloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel in another contrast about the mean grey, and each image brighter or darker."""
    count, device = len(images), images.device
    gain = 1 + _GAIN * (2 * torch.rand(count, images.shape[1], 1, 1, generator=generator) - 1).to(device)
    shift = _GAIN * images.std() * _uniform(count, -1, 1, generator, device)
    grey, low, high = images.mean(), images.amin(), images.amax()
    return torch.minimum(torch.maximum((images - grey) * gain + grey + shift, low), high)
