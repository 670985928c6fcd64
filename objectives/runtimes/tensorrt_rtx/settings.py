"""TensorRT-RTX's section of the study file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from objectives.runtimes.settings import RuntimeSettings
from objectives.runtimes.tensorrt_rtx.capability import capability_text, parse_capability


def _known(value: object) -> object:
    """YAML reads ``12.0`` as a number."""
    if value is None or isinstance(value, bool):
        return value
    return capability_text(parse_capability(f"{value:.1f}" if isinstance(value, float) else str(value)))


class TensorRtRtxSettings(RuntimeSettings):
    """`compute_capability` is the GPU's that engines are built for, e.g. ``"12.0"``; by default this machine's."""

    builder_keys: ClassVar[tuple[str, ...]] = ("compute_capability",)

    name: Literal["tensorrt-rtx"] = "tensorrt-rtx"
    compute_capability: Annotated[str | None, BeforeValidator(_known)] = None
