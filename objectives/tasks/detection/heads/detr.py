"""The DETR family as Hugging Face transformers exports it: ``logits`` and ``pred_boxes``, one head per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from objectives.tasks.detection.heads.queries import Family, QueryHead


@dataclass(frozen=True)
class DetrHead(QueryHead):
    """DETR, YOLOS: softmax over the classes and 'no object'."""

    family: ClassVar[Family] = Family.NO_OBJECT


@dataclass(frozen=True)
class DeformableDetrHead(QueryHead):
    """Deformable and Conditional DETR, DINO, LW-DETR, RF-DETR: a sigmoid per class, pixels by ImageNet's mean."""

    family: ClassVar[Family] = Family.REFINED


@dataclass(frozen=True)
class DFineHead(QueryHead):
    """RT-DETR, RT-DETRv2, D-FINE: a sigmoid per class, pixels as they are."""

    family: ClassVar[Family] = Family.REAL_TIME
