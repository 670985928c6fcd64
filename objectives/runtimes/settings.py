"""A runtime's settings: the `runtime` section of a study file, a union told apart by its `name`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class RuntimeSettings(BaseModel):
    """What every runtime has; a runtime adds its own keys in a subclass.

    `device` counts the visible GPUs; `limit_s` is the time after which an evaluation counts as hung.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: Keys, of those that a subclass adds, that decide what an engine becomes.
    builder_keys: ClassVar[tuple[str, ...]] = ()
    #: Keys that hold paths.
    path_keys: ClassVar[tuple[str, ...]] = ()
    #: How weights are quantized where nobody says, of `quantization.weights.METHODS`.
    weights_method: ClassVar[str] = "auto"

    name: Text
    threads: Positive = 1
    batch: Positive = 1
    device: Annotated[int, Field(ge=0)] = 0
    limit_s: PositiveFloat = 1800.0


def own_keys(kind: type[RuntimeSettings]) -> dict[str, Any]:
    """Keys that a runtime adds to those of all runtimes, and their defaults."""
    return {key: field.default for key, field in kind.model_fields.items() if key not in RuntimeSettings.model_fields}
