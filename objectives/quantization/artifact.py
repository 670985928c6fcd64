"""What materializing a scheme gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from objectives.quantization.float_nodes import FullPrecision
from objectives.scores import Size
from search_spaces.durable import durable_file


@dataclass(frozen=True)
class Artifact:
    """One materialized scheme.

    Attributes:
        data: Serialized ONNX model.
        size: Weight size.
        build: The model for the engine builder, where it is another than `data`.
        folded: Layers whose weights are packed in `data` and unpacked in `build`.
        precision: The nodes of an fp16 graph that stay float32, pixel coordinates aside.
    """

    data: bytes
    size: Size
    build: bytes | None = None
    folded: tuple[str, ...] = ()
    precision: FullPrecision = field(default_factory=FullPrecision)

    @property
    def engine_model(self) -> bytes:
        """What is loaded, or built into an engine."""
        return self.build if self.build is not None else self.data

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `data`, hex."""
        return hashlib.sha256(self.data).hexdigest()

    def check(self) -> None:
        """Runs onnx.checker with full shape inference.

        Raises:
            onnx.checker.ValidationError: The artifact is not valid ONNX.
        """
        onnx.checker.check_model(onnx.load_model_from_string(self.data), full_check=True)

    def save(self, path: Path) -> None:
        """Writes the model, whole or not at all, into a folder that exists."""
        with durable_file(path) as draft:
            draft.write_bytes(self.data)
