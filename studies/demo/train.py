"""Trains the demo detector, a small YOLOv10-style network, on generated scenes and exports it to ONNX.

The network is written from the published description (Wang et al., "YOLOv10: Real-Time End-to-End Object
Detection", 2024): cross-stage partial blocks, a path-aggregation neck, decoupled heads with distribution
focal loss, and two sets of heads, of which the one-to-one set needs no suppression and alone is exported.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from scenes import NAMES, letterbox, render
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 160  # side of the input
STRIDES = (8, 16, 32)
ANCHORS = sum((SIZE // stride) ** 2 for stride in STRIDES)
SPANS = ((0, 20), (15, 42), (32, SIZE + 1))  # longer sides, in pixels, of the objects each stride is given
BINS = 16  # of the distribution over each side's distance, in strides
DETECTIONS = 300
TOP = (10, 1)  # anchors per object for the one-to-many and the one-to-one heads
TRAIN_SEED = 1000


class Conv(nn.Module):
    """Convolution, batch norm and, unless `act` is off, SiLU: [B, c1, H, W] -> [B, c2, H / s, W / s]."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, *, g: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Folds the batch norm into the convolution."""
        self.conv = fuse_conv_bn_eval(self.conv, self.bn)
        self.bn = nn.Identity()


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a residual sum if `add`: [B, c, H, W] -> [B, c, H, W]."""

    def __init__(self, c: int, add: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(c, c, 3), Conv(c, c, 3), add

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """Cross-stage partial block, one half through a bottleneck: [B, c1, H, W] -> [B, c2, H, W]."""

    def __init__(self, c1: int, c2: int, add: bool = False) -> None:
        super().__init__()
        self.hidden = c2 // 2
        self.cv1, self.cv2 = Conv(c1, c2), Conv(3 * self.hidden, c2)
        self.m = nn.ModuleList([Bottleneck(self.hidden, add)])

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        parts = list(self.cv1(x).split((self.hidden, self.hidden), 1))
        return self.cv2(torch.cat([*parts, self.m[0](parts[-1])], 1))


class SCDown(nn.Module):
    """Down-sampling with channels and space apart: [B, c1, H, W] -> [B, c2, H / 2, W / 2]."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2), Conv(c2, c2, 3, 2, g=c2, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        return self.cv2(self.cv1(x))


class SPPF(nn.Module):
    """Pyramid pooling by repeated max-pooling: [B, c1, H, W] -> [B, c2, H, W]."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(2 * c1, c2)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.m(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Concat(nn.Module):
    """Joins maps along their channels: n of [B, c, H, W] -> [B, sum of c, H, W]."""

    def forward(self, x: list[Tensor]) -> Tensor:
        """Applies the block."""
        return torch.cat(x, 1)


class DFL(nn.Module):
    """Expected distance under a distribution over bins: [B, 4 * BINS, A] -> [B, 4, A]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.copy_(torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        bins = x.reshape(-1, 4, BINS, ANCHORS).transpose(2, 1).softmax(1)
        return self.conv(bins).reshape(-1, 4, ANCHORS)


class Detect(nn.Module):
    """One-to-many (`cv2`, `cv3`) and one-to-one heads: box bins and class logits of every anchor."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.cv2, self.cv3, self.dfl = nn.ModuleList(), nn.ModuleList(), DFL()
        for c, stride in zip(channels, STRIDES, strict=True):
            box = nn.Sequential(Conv(c, 48, 3), nn.Conv2d(48, 4 * BINS, 1))
            stem = nn.Sequential(Conv(c, c, 3, g=c), Conv(c, 64))
            score = nn.Sequential(stem, nn.Conv2d(64, len(NAMES), 1))
            nn.init.constant_(box[-1].bias, 1.0)
            nn.init.constant_(score[-1].bias, math.log(5 / len(NAMES) / (SIZE / stride) ** 2))
            self.cv2.append(box)
            self.cv3.append(score)
        self.one2one_cv2, self.one2one_cv3 = copy.deepcopy(self.cv2), copy.deepcopy(self.cv3)
        anchors = []
        for stride, span in zip(STRIDES, SPANS, strict=True):
            axis = torch.arange(SIZE // stride) + 0.5
            y, x = torch.meshgrid(axis, axis, indexing="ij")
            anchors.append(torch.stack([x, y, *(torch.full_like(x, v) for v in (stride, *span))]).flatten(1))
        points, strides, spans = torch.cat(anchors, 1).split((2, 1, 2))
        self.register_buffer("points", points, persistent=False)  # [2, A], in strides
        self.register_buffer("strides", strides, persistent=False)  # [1, A]
        self.register_buffer("spans", spans, persistent=False)  # [2, A]

    def raw(self, maps: list[Tensor], boxes: nn.ModuleList, scores: nn.ModuleList) -> tuple[Tensor, Tensor]:
        """Returns one head set's bins [B, 4 * BINS, A] and class logits [B, classes, A]."""
        cells = [(SIZE // stride) ** 2 for stride in STRIDES]
        bins = [head(x).reshape(-1, 4 * BINS, n) for head, x, n in zip(boxes, maps, cells, strict=True)]
        logits = [head(x).reshape(-1, len(NAMES), n) for head, x, n in zip(scores, maps, cells, strict=True)]
        return torch.cat(bins, 2), torch.cat(logits, 2)

    def decode(self, bins: Tensor) -> Tensor:
        """Returns the corners x1, y1, x2, y2 in pixels [B, 4, A] of bins [B, 4 * BINS, A]."""
        left_top, right_bottom = self.dfl(bins).split((2, 2), 1)
        return torch.cat([self.points - left_top, self.points + right_bottom], 1) * self.strides

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Returns the best `DETECTIONS` as x1, y1, x2, y2, score, class [B, DETECTIONS, 6]."""
        bins, logits = self.raw(maps, self.one2one_cv2, self.one2one_cv3)
        boxes, scores = self.decode(bins).transpose(1, 2), logits.sigmoid().transpose(1, 2)
        anchor = scores.amax(2).topk(DETECTIONS, 1).indices.unsqueeze(2)  # [B, D, 1]
        boxes = boxes.gather(1, torch.cat([anchor] * 4, 2))
        scores = scores.gather(1, torch.cat([anchor] * len(NAMES), 2))
        best, index = scores.flatten(1).topk(DETECTIONS, 1)  # an anchor may serve several classes
        anchor = torch.div(index, len(NAMES), rounding_mode="trunc").unsqueeze(2)
        label = (index % len(NAMES)).unsqueeze(2).float()
        return torch.cat([boxes.gather(1, torch.cat([anchor] * 4, 2)), best.unsqueeze(2), label], 2)


class Detector(nn.Module):
    """The whole network: RGB images / 255 [B, 3, SIZE, SIZE] -> detections [B, DETECTIONS, 6]."""

    SOURCES: ClassVar = {11: (-1, 6), 14: (-1, 4), 17: (-1, 12), 20: (-1, 9), 22: (15, 18, 21)}

    def __init__(self) -> None:
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="nearest")
        backbone = [Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C2f(32, 32, True), Conv(32, 64, 3, 2)]
        backbone += [C2f(64, 64, True), SCDown(64, 96), C2f(96, 96, True), SCDown(96, 128)]
        backbone += [C2f(128, 128, True), SPPF(128, 128)]
        neck = [up, Concat(), C2f(224, 96), up, Concat(), C2f(160, 64)]
        neck += [Conv(64, 64, 3, 2), Concat(), C2f(160, 96), SCDown(96, 96), Concat(), C2f(224, 128)]
        self.model = nn.ModuleList([*backbone, *neck, Detect((64, 96, 128))])

    def maps(self, x: Tensor) -> list[Tensor]:
        """Returns the feature maps of `STRIDES`, each [B, c, SIZE / stride, SIZE / stride]."""
        done: list[Tensor] = []
        for index, module in enumerate(self.model[:-1]):
            sources = self.SOURCES.get(index)
            x = module([done[source] for source in sources] if sources else x)
            done.append(x)
        return [done[source] for source in self.SOURCES[len(self.model) - 1]]

    def forward(self, x: Tensor) -> Tensor:
        """Runs the network with its one-to-one heads."""
        return self.model[-1](self.maps(x))


def overlap(a: Tensor, b: Tensor, complete: bool = False) -> Tensor:
    """Returns the (complete, Zheng et al. 2020) intersection over union of boxes [..., 4], by broadcast."""
    sides_a, sides_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0).prod(-1)
    iou = inter / (sides_a.prod(-1) + sides_b.prod(-1) - inter + 1e-7)
    if not complete:
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    slant = [torch.atan(s[..., 0] / s[..., 1].clamp(1e-3)) for s in (sides_a, sides_b)]
    skew = (slant[1] - slant[0]).square() * 4 / math.pi**2
    weight = (skew / (skew - iou + 1 + 1e-7)).detach()
    return iou - apart / (hull.square().sum(-1) + 1e-7) - weight * skew


@torch.no_grad()
def assign(
    boxes: Tensor, scores: Tensor, head: Detect, targets: Tensor, labels: Tensor, *, top: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Assigns anchors to objects by task alignment (Feng et al. 2021), score^0.5 * iou^6.

    Each stride is given objects of its own span of sizes: left to the alignment, the finest won them all. An
    object that holds no anchor of its strides takes what there is.

    Args:
        boxes: predicted corners [B, A, 4].
        scores: predicted class probabilities [B, A, classes].
        head: supplies the anchors.
        targets: corners of the objects [B, N, 4].
        labels: classes of the objects, -1 where there is none [B, N].
        top: how many anchors each object gets.

    Returns:
        Whether each anchor got an object, which one, and its alignment, scaled to the object's best overlap, [B, A].
    """
    real = labels >= 0
    iou = overlap(targets.unsqueeze(2), boxes.unsqueeze(1))  # [B, N, A]
    index = labels.clamp(0).unsqueeze(2).expand(-1, -1, boxes.shape[1])
    score = scores.transpose(1, 2).gather(1, index)
    centres = (head.points * head.strides).T
    edges = torch.cat([centres - targets[..., None, :2], targets[..., None, 2:] - centres], -1)
    inside = (edges.amin(-1) > 0) & real.unsqueeze(2)
    side = (targets[..., 2:] - targets[..., :2]).amax(2, keepdim=True)
    fitting = inside & (side >= head.spans[0]) & (side < head.spans[1])
    inside = torch.where(fitting.any(2, keepdim=True), fitting, inside)
    metric = score.sqrt() * iou.pow(6) * inside
    chosen = torch.zeros_like(inside).scatter_(2, metric.topk(top, 2).indices, True) & inside
    rival = torch.where(chosen, iou, iou.new_tensor(-1.0)).argmax(1, keepdim=True)  # [B, 1, A]
    chosen &= torch.zeros_like(chosen).scatter_(1, rival, True)
    metric = metric * chosen
    scaled = metric / metric.amax(2, keepdim=True).clamp(1e-9) * (iou * chosen).amax(2, keepdim=True)
    return chosen.any(1), rival.squeeze(1), scaled.amax(1)


def loss(head: Detect, raw: tuple[Tensor, Tensor], targets: Tensor, labels: Tensor, top: int) -> Tensor:
    """Returns one head set's loss: overlap, distribution focal loss and cross entropy of the classes.

    `raw` holds the set's bins [B, 4 * BINS, A] and class logits [B, classes, A]; the rest is as in `assign`.
    """
    bins, logits = raw[0].float(), raw[1].float().transpose(1, 2)
    boxes = head.decode(bins).transpose(1, 2)
    points, strides = head.points.T, head.strides.T  # [A, 2], [A, 1]
    found, owner, quality = assign(boxes, logits.sigmoid(), head, targets, labels, top=top)
    wanted = torch.zeros_like(logits)
    label = labels.clamp(0).gather(1, owner)
    wanted.scatter_(2, label.unsqueeze(2), (quality * found).unsqueeze(2))
    total = wanted.sum().clamp(1.0)
    classes = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / total

    weight = quality[found]
    goal = targets.gather(1, owner.unsqueeze(2).expand(-1, -1, 4))[found]
    box = (weight * (1 - overlap(boxes[found], goal, complete=True))).sum() / total
    where = found.nonzero()[:, 1]
    goal = goal / strides[where]
    distance = torch.cat([points[where] - goal[:, :2], goal[:, 2:] - points[where]], 1).clamp(0, BINS - 1.01)
    low = distance.long()
    chances = bins.transpose(1, 2)[found].view(-1, 4, BINS).log_softmax(2)
    upper = distance - low
    focal = -(1 - upper) * chances.gather(2, low.unsqueeze(2)).squeeze(2)
    focal = focal - upper * chances.gather(2, low.unsqueeze(2) + 1).squeeze(2)
    return 7.5 * box + 1.5 * (weight * focal.mean(1)).sum() / total + 0.5 * classes


def dataset(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Renders training scenes: images [count, 3, SIZE, SIZE], corners [count, 9, 4] and labels [count, 9]."""
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    boxes, labels = torch.zeros(count, 9, 4), torch.full((count, 9), -1)
    for index in range(count):
        scene = render(np.random.default_rng([TRAIN_SEED, index]))
        square, scale, pad = letterbox(scene.image, SIZE)
        images[index] = torch.from_numpy(square).permute(2, 0, 1)
        n = len(scene.classes)
        boxes[index, :n] = torch.from_numpy(scene.boxes) * scale + torch.tensor([*pad, *pad])
        labels[index, :n] = torch.from_numpy(scene.classes)
    return images, boxes, labels


def augment(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors and transposes a batch at random, shuffles its colours, and scales it to 0..1."""
    x, sign = images.float() / 255, torch.tensor([-1, 1, -1, 1])
    if torch.rand(()) < 0.5:
        x, boxes = x.flip(3), boxes[..., [2, 1, 0, 3]] * sign + SIZE * (sign < 0)
    if torch.rand(()) < 0.5:
        x, boxes = x.flip(2), boxes[..., [0, 3, 2, 1]] * -sign + SIZE * (sign > 0)
    if torch.rand(()) < 0.5:
        x, boxes = x.transpose(2, 3), boxes[..., [1, 0, 3, 2]]
    gain = 1 + 0.15 * (2 * torch.rand(len(x), 3, 1, 1) - 1)
    x = (x[:, torch.randperm(3)] * gain).clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last), boxes


def train(scenes: int, batch: int, minutes: float, peak: float = 3e-3) -> Detector:
    """Trains for a given time, the rate following the clock; returns the averaged model."""
    images, boxes, labels = dataset(scenes)
    model = Detector().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.02}]
    groups += [{"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
    head = model.model[-1]
    start, step, order = time.perf_counter(), 0, torch.randperm(scenes)
    while (done := (time.perf_counter() - start) / (60 * minutes)) < 1:
        at = step * batch % (scenes - batch + 1)
        order = torch.randperm(scenes) if at < batch else order
        pick = order[at : at + batch]
        x, targets = augment(images[pick], boxes[pick])
        rate = peak * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            maps = model.maps(x)
            heads = head.raw(maps, head.cv2, head.cv3), head.raw(maps, head.one2one_cv2, head.one2one_cv3)
        many, one = (loss(head, raw, targets, labels[pick], top) for raw, top in zip(heads, TOP, strict=True))
        optimiser.zero_grad()
        (many + one).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        step += 1
        keep = 0.998 * (1 - math.exp(-step / 200))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                if mean.dtype.is_floating_point:
                    mean.lerp_(value, 1 - keep)
        if step % 100 == 0:
            print(f"{done:6.1%} step {step} many {many.item():.3f} one {one.item():.3f}", flush=True)
    return average


def export(model: Detector, path: Path) -> None:
    """Writes the model, batch norms folded, with the metadata that Ultralytics' exports carry."""
    model = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    del model.model[-1].cv2, model.model[-1].cv3
    for module in model.modules():
        if isinstance(module, Conv):
            module.fuse()
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    ends = {"input_names": ["images"], "output_names": ["output0"]}
    # The older exporter names each node by its module's path.
    torch.onnx.export(model, example, str(path), opset_version=17, dynamo=False, **ends)
    graph = onnx.load(path)
    for node in [n for n in graph.graph.node if n.op_type == "Identity"]:  # equal initialisers were shared
        twin = next(i for i in graph.graph.initializer if i.name == node.input[0])
        graph.graph.initializer.add().CopyFrom(twin)
        graph.graph.initializer[-1].name = node.output[0]
        graph.graph.node.remove(node)
    metadata = {"names": str(dict(enumerate(NAMES))), "imgsz": str([SIZE, SIZE]), "stride": str(max(STRIDES))}
    metadata |= {"task": "detect", "batch": "1", "license": "Apache-2.0"}
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def main() -> None:
    """Trains and exports."""
    parser = argparse.ArgumentParser(description="Trains the demo detector and exports it to ONNX.")
    parser.add_argument("--out", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=12.5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    export(train(args.scenes, args.batch, args.minutes), args.out)


if __name__ == "__main__":
    main()
