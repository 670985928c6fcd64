"""The heads that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.registry import Registry

if TYPE_CHECKING:  # names are told without what is behind them
    from objectives.tasks.detection.heads.head import Head

#: Heads by name; a model is tried against them in this order, then against those of other packages.
HEADS: Registry[type[Head]] = Registry(
    "head",
    {
        "yolox": "objectives.tasks.detection.heads.yolox:YoloxHead",
        "yolov5": "objectives.tasks.detection.heads.yolov5:Yolov5Head",
        "yolov7": "objectives.tasks.detection.heads.yolov7:Yolov7Head",
        "rtdetr": "objectives.tasks.detection.heads.rtdetr:RtDetrHead",
        "nms": "objectives.tasks.detection.heads.nms:NmsHead",
        "nms_plugin": "objectives.tasks.detection.heads.nms_plugin:NmsPluginHead",
        "segment": "objectives.tasks.detection.heads.segment:SegmentHead",
        "pose": "objectives.tasks.detection.heads.pose:PoseHead",
        "oriented": "objectives.tasks.detection.heads.oriented:OrientedHead",
        "end_to_end": "objectives.tasks.detection.heads.end_to_end:EndToEndHead",
        "scores": "objectives.tasks.detection.heads.scores:ScoresHead",
        "scores_normalised": "objectives.tasks.detection.heads.scores_normalised:NormalisedScoresHead",
        "raw": "objectives.tasks.detection.heads.raw:RawHead",
        "detr": "objectives.tasks.detection.heads.detr:DetrHead",
        "deformable_detr": "objectives.tasks.detection.heads.detr:DeformableDetrHead",
        "dfine": "objectives.tasks.detection.heads.detr:DFineHead",
        "torchvision": "objectives.tasks.detection.heads.torchvision:TorchvisionHead",
    },
    "tuner.heads",
)
