"""The metrics that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.registry import Registry

if TYPE_CHECKING:  # names are told without what is behind them
    from objectives.tasks.detection.metrics.metric import Metric

#: Metrics by name.
METRICS: Registry[type[Metric]] = Registry(
    "metric",
    {
        "coco_box": "objectives.tasks.detection.metrics.coco:CocoBox",
        "ultralytics_box": "objectives.tasks.detection.metrics.ultralytics_box:UltralyticsBox",
        "coco_segm": "objectives.tasks.detection.metrics.coco_instances:CocoMask",
        "coco_keypoints": "objectives.tasks.detection.metrics.coco_instances:CocoKeypoints",
        "agreement": "objectives.tasks.detection.metrics.agreement:Agreement",
    },
    "tuner.metrics",
)
#: What is computed where nobody asks for more.
DEFAULT_METRICS = ("coco_box",)
