"""A torch detector as sensitivity methods use it: raw head outputs, the detection loss, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.tasks.detection.data.coco_json import read_coco
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.thresholds import Thresholds
from objectives.torch_models.checkpoint import Checkpoint
from search_spaces.errors import InputError
from search_spaces.reading import read_json

OWN_LABELS = "its own detections above 0.25"
_CONFIDENT = Thresholds(confidence=0.25, iou=0.5)
_ONE_TO_ONE = {"tal_topk": 7, "tal_topk2": 1}  # assigned anchors per box, as Ultralytics trains the one-to-one head


@dataclass(frozen=True)
class ImageLabels:
    """Boxes of one image, in the pixels of the model's input.

    Attributes:
        classes: Shape (k,), class indices.
        boxes: Shape (k, 4), float32: x1, y1, x2, y2.
    """

    classes: NDArray[np.int64]
    boxes: NDArray[np.float32]


class TorchDetector:
    """One head of a YOLO checkpoint of the task ``detect``, BatchNorm folded.

    Attributes:
        module: `torch.nn.Module` in eval mode.
        device: ``cpu`` or a CUDA device.
    """

    def __init__(self, checkpoint: Checkpoint, end_to_end: bool, device: str = "cpu") -> None:
        from ultralytics.utils.loss import v8DetectionLoss

        if checkpoint.task != "detect" or not hasattr(checkpoint.module.model[-1], "reg_max"):
            kind = type(checkpoint.module.model[-1]).__name__
            raise InputError(
                f"{checkpoint.path}: its head {kind} has no loss that layers could be ranked by in torch, which YOLO's "
                "of the task `detect` have; choose sensitivity.method onnx"
            )
        self.module = checkpoint.fused(end_to_end).to(device)
        self.device = device
        assigned = _ONE_TO_ONE if end_to_end and checkpoint.has_one_to_one_head else {}
        self._loss = v8DetectionLoss(self.module, **assigned)

    def tensor(self, pixels: NDArray[np.float32]) -> Any:
        """A batch on the device: (n, 3, H, W), float32 in [0, 1]."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)

    def heads(self, module: Any, images: Any) -> dict[str, Any]:
        """Raw outputs of the head that was kept.

        Args:
            module: `self.module`, or a quantized copy of it.
            images: (n, 3, H, W).

        Returns:
            ``boxes`` (n, 4 x bins, anchors), ``scores`` (n, classes, anchors) as logits, ``feats``.
        """
        predictions = module(images)[1]
        found: dict[str, Any] = predictions.get("one2one") or predictions.get("one2many") or predictions
        return found

    def loss(self, heads: dict[str, Any], labels: ImageLabels) -> Any:
        """Ultralytics' detection loss of one image: box, class and distribution terms, with its gains, summed."""
        import torch

        height, width = (size * int(self._loss.stride[0]) for size in heads["feats"][0].shape[2:])
        boxes = labels.boxes / np.array([width, height, width, height], np.float32)
        centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        batch = {
            "batch_idx": torch.zeros(len(boxes), device=self.device),
            "cls": torch.from_numpy(labels.classes.astype(np.float32)).to(self.device),
            "bboxes": torch.from_numpy(centred.astype(np.float32)).to(self.device),
        }
        return self._loss.loss(heads, batch)[0].sum()

    def own_labels(self, pixels: NDArray[np.float32], detector: Detector) -> ImageLabels:
        """What the model itself detects with confidence on one image, (1, 3, H, W)."""
        import torch

        with torch.no_grad():
            output = self.module(self.tensor(pixels))[0].cpu().numpy()
        rows = detector.head.decode([output], _CONFIDENT)[0]
        return ImageLabels(rows[:, 5].astype(np.int64), np.asarray(rows[:, :4], np.float32))


def read_labels(
    annotations: Path, records: Sequence[ImageRecord], images: PreprocessedImages, detector: Detector
) -> tuple[ImageLabels, ...]:
    """Reads the boxes of calibration images from a COCO json, found by file name.

    Args:
        annotations: The COCO json.
        records: The images.
        images: The same images, preprocessed.
        detector: Its classes.

    Raises:
        InputError: The file is broken, or labels none of the images.
    """
    data = read_json(annotations, "sensitivity.labels must be a COCO json of these images")
    dataset = CocoDataset(*read_coco(data, Path(), annotations), annotations)
    dataset = dataset.matched(detector.classes, detector.class_count)
    index = {
        category: i for i, category in enumerate(dataset.category_of_class(detector.classes, detector.class_count))
    }
    ids = {record.path.name: record.id for record in dataset.images}
    missing = [record.path.name for record in records if record.path.name not in ids]
    if missing:
        raise InputError(
            f"sensitivity.labels {str(annotations)!r}: {len(missing)} of {len(records)} calibration images are not in "
            f"it, e.g. {missing[0]}; give a COCO json of these images, or leave the key out"
        )
    found = []
    for record, place in zip(records, images.placements, strict=True):
        rows = [a for a in dataset.annotations if a.image_id == ids[record.path.name] and not a.iscrowd]
        boxes = np.array([a.bbox for a in rows], np.float32).reshape(-1, 4)
        corners = place.to_input(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        found.append(ImageLabels(np.array([index[a.category_id] for a in rows], np.int64), corners))
    return tuple(found)
