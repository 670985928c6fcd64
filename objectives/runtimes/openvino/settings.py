"""OpenVINO's section of the study file."""

from __future__ import annotations

from typing import ClassVar, Literal

from objectives.runtimes.settings import RuntimeSettings, Text


class OpenVinoSettings(RuntimeSettings):
    """`device_name` is OpenVINO's: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``; `precision` what floats are computed in.

    OpenVINO itself would take bf16 or f16 wherever the device has it, and report nothing.
    """

    builder_keys: ClassVar[tuple[str, ...]] = ("device_name", "precision")
    # Measured: a tenth (yolov8n) and a fifth (yolov10s) nearer to the unquantized model, for the very same graph.
    weights_method: ClassVar[str] = "corrected"

    name: Literal["openvino"] = "openvino"
    device_name: Text = "CPU"
    precision: Literal["f32", "f16", "bf16"] = "f32"
