"""TensorRT's section of the study file."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from objectives.runtimes.settings import Positive, RuntimeSettings
from objectives.runtimes.tensorrt.rules import BuilderSettings


class TensorRtSettings(RuntimeSettings):
    """TensorRT's engine builder; its own keys are explained at `BuilderSettings`."""

    builder_keys: ClassVar[tuple[str, ...]] = (
        "optimization_level",
        "workspace_mib",
        "tactic_sources",
        "timing_iterations",
    )

    name: Literal["tensorrt"] = "tensorrt"
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    workspace_mib: Positive | None = None
    tactic_sources: list[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]] | None = None
    timing_iterations: Annotated[int, Field(ge=1, le=1000)] = 1

    @property
    def builder(self) -> BuilderSettings:
        """As the builder takes them."""
        sources = tuple(self.tactic_sources) if self.tactic_sources is not None else None
        return BuilderSettings(
            self.optimization_level, self.workspace_mib, sources, self.timing_iterations, self.device
        )
