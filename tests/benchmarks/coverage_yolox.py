"""A small detector of the form of YOLOX: anchor-free, decoupled heads, an objectness beside the classes.

After Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (arXiv:2107.08430), figure 2 and section 2.1; the backbone is
shortened. Rows of the output are centre, size, objectness, classes: in cells and logarithms, or decoded to pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

STRIDES = (8, 16, 32)


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, SiLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


class Level(nn.Module):  # type: ignore[misc]
    """The decoupled head of one stride."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = block(width, width, 1)
        self.class_branch = nn.Sequential(block(width, width), block(width, width))
        self.box_branch = nn.Sequential(block(width, width), block(width, width))
        self.classes, self.box, self.objectness = (nn.Conv2d(width, n, 1) for n in (classes, 4, 1))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        boxes, classes = self.box_branch(x), self.class_branch(x)
        scores = [self.objectness(boxes).sigmoid(), self.classes(classes).sigmoid()]
        return torch.cat([self.box(boxes), *scores], 1)


class Yolox(nn.Module):  # type: ignore[misc]
    """Space-to-depth stem, four stages, three levels."""

    def __init__(self, classes: int, width: int, decode: bool) -> None:
        super().__init__()
        self.decode = decode
        self.stem = block(12, width)
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.stages = nn.ModuleList(nn.Sequential(block(a, b, 3, 2), block(b, b, 1), block(b, b)) for a, b in pairs)
        self.levels = nn.ModuleList(Level(each, classes) for each in widths[2:])

    def forward(self, x: Any) -> Any:
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.stem(torch.cat(parts, 1))
        found = []
        for stage, level in zip(self.stages, [None, *self.levels], strict=True):
            x = stage(x)
            if level is not None:
                found.append(level(x))
        rows = torch.cat([each.flatten(2) for each in found], 2).permute(0, 2, 1)
        if not self.decode:
            return rows
        cells, strides = [], []
        for stride, each in zip(STRIDES, found, strict=True):
            height, width = each.shape[2:]
            grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            cells.append(torch.stack(grid[::-1], 2).reshape(1, -1, 2))
            strides.append(torch.full((1, height * width, 1), stride))
        grid, stride = torch.cat(cells, 1), torch.cat(strides, 1)
        return torch.cat([(rows[..., :2] + grid) * stride, rows[..., 2:4].exp() * stride, rows[..., 4:]], -1)


def yolox(decode: bool, classes: int = 80, width: int = 16) -> Any:
    """An untrained one of varied scores."""
    torch.manual_seed(0)
    model = Yolox(classes, width, decode).eval()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.3, 1.0)
                part.running_mean.normal_(0, 0.1)
    return model
