"""The runtime of replayed scores: nothing is materialized or run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.runtimes.replay.evaluator import ReplayEvaluator, ReplaySettings
from objectives.runtimes.runtime import Opened, Runtime
from objectives.runtimes.settings import RuntimeSettings, Text
from objectives.runtimes.support import COMPUTES, Support
from search_spaces.costs import CostTable
from search_spaces.errors import InputError
from search_spaces.formats import Format
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityTable


class ReplayRuntimeSettings(RuntimeSettings):
    """`file` holds the recorded scores; without it they come from a seeded model."""

    path_keys: ClassVar[tuple[str, ...]] = ("file",)

    name: Literal["replay"] = "replay"
    file: Text | None = None


class ReplayRuntime(Runtime):
    """Scores from a seeded model, or from a file of recorded ones."""

    settings_type = ReplayRuntimeSettings
    title = "replay"
    artifacts = False
    plugins = True
    settings: ReplayRuntimeSettings

    def check(self) -> None:
        """Nothing is needed."""

    def support(self, fmt: Format) -> Support:
        """Every format is scored."""
        return COMPUTES

    def dialect(self, version: str | None = None, capability: str | None = None) -> Dialect:
        """Nothing is written; a checkpoint is exported as for ONNX Runtime."""
        return ONNXRUNTIME

    def open(self, model: bytes | Path, graph: ModelGraph | None = None) -> AbstractContextManager[Opened]:
        """It cannot; raises `InputError`."""
        raise InputError(f"runtime {self.name!r} runs no model; choose another with --runtime")

    def try_out(self, model: bytes, images: NDArray[np.float32]) -> str:
        """It runs no model."""
        return f"{self.name} runs no model"

    def device(self) -> dict[str, Any]:
        """Any machine replays alike."""
        return {"cpu": "replay"}

    def layer_costs(
        self, graph: ModelGraph, materializer: Materializer | None, image: Callable[[], NDArray[np.float32]]
    ) -> CostTable:
        """The latency of each choice as the seeded model adds it up."""
        return self.study_evaluator(graph).costs()

    def study_evaluator(self, graph: ModelGraph) -> ReplayEvaluator:
        """Replays."""
        file = self.settings.file
        return ReplayEvaluator(graph.quantizable, ReplaySettings.read(Path(file) if file else None))

    def sensitivity(self, graph: ModelGraph, formats: Sequence[str]) -> SensitivityTable:
        """A prior that ranks the layers almost as they are."""
        return self.study_evaluator(graph).sensitivity(formats, graph.digest)
