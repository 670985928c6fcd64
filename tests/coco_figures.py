"""Accuracies as COCO's box metric yields them."""

from objectives.scores import Accuracy
from objectives.tasks.detection.metrics.coco import CocoBox


def coco_accuracy(*values: float, images: int = 10) -> Accuracy:
    """COCO's six figures in their order; where fewer are given, the last one stands for the others too."""
    padded = [*values, *values[-1:] * (len(CocoBox.yields) - len(values))]
    return Accuracy(metrics=dict(zip(CocoBox.yields, padded, strict=True)), images=images)
