"""All targets by name; other packages add theirs by the entry point group ``tuner.targets``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.registry import Registry

if TYPE_CHECKING:  # names are told without what is behind them
    from tuner.results.targets.target import Target

TARGETS: Registry[type[Target]] = Registry(
    "target",
    {
        "triton": "tuner.results.targets.triton:Triton",
        "deepstream": "tuner.results.targets.deepstream:DeepStream",
        "ultralytics": "tuner.results.targets.ultralytics:Ultralytics",
        "openvino": "tuner.results.targets.openvino:OpenVinoFolder",
    },
    "tuner.targets",
)
