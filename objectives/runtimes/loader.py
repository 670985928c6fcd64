"""What loads a scheme's files where they are deployed."""

from __future__ import annotations

from enum import Enum


class Loader(Enum):
    """A library that servers and frameworks bring with them; its value is the file of an exported scheme it reads."""

    ONNXRUNTIME = "model.onnx"
    OPENVINO = "model.xml"
    TENSORRT = "engine.plan"
