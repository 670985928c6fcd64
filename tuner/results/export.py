"""Exports one scheme: the model that was scored, and a description that lets anyone check it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from objectives.quantization.materialize import Materializer
from objectives.runtimes.engine_builder import PLAN, EngineBuilder
from objectives.runtimes.registry import open_runtime
from objectives.runtimes.runtime import Runtime
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from tuner.prepare.calibration import read_calibration
from tuner.prepare.materializers import batched_graph, make_materializer
from tuner.prepare.refinements import read_refined
from tuner.prepare.weights import read_weights
from tuner.results.exported import DESCRIPTION, Exported, check_free, write_folder
from tuner.results.front_files import rescored
from tuner.results.kept import kept_scheme
from tuner.results.loaded import LoadedRun
from tuner.search.records import TrialRecord
from tuner.study.identity import versions
from tuner.study.inputs import read_model
from tuner.terminal.console import say


class Exporter:
    """Exports trials of one run; the model is read once for all of them, when the first needs it.

    Attributes:
        loaded: The run.
    """

    def __init__(self, loaded: LoadedRun, graph: ModelGraph | None = None) -> None:
        self.loaded = loaded
        self._given = graph
        self._runtime = open_runtime(loaded.config.runtime)

    @cached_property
    def _graph(self) -> ModelGraph:
        loaded = self.loaded
        graph = self._given or read_model(loaded.config.model, self._runtime)
        expected = loaded.manifest["identity"]["digest.model"]
        if graph.digest != expected:
            raise InputError(f"{graph.path}: not the model of this run (sha256 {expected}); restore it")
        return batched_graph(graph, loaded.config.runtime.batch)

    @cached_property
    def _materializer(self) -> Materializer:
        loaded = self.loaded
        version = loaded.manifest["identity"].get(self._runtime.version_key)
        weights, refined = read_weights(loaded.run), read_refined(loaded.run)
        return make_materializer(loaded.config, self._graph, read_calibration(loaded.run), weights, version, refined)

    @property
    def runtime(self) -> Runtime:
        """The run's."""
        return self._runtime

    @property
    def graph(self) -> ModelGraph:
        """The unquantized model, at the batch of the study; raises `InputError` where it is gone or another one."""
        return self._graph

    def export(self, record: TrialRecord, folder: Path) -> dict[str, Any]:
        """Writes what `contents` holds, and returns the description.

        Args:
            record: A complete trial.
            folder: Where to; must not exist, or be empty.

        Raises:
            InputError: The folder holds something or cannot be written, or the model is not the one that was
                scored.
        """
        check_free(folder)
        found = self.contents(record)
        write_folder(folder, {**found.files, DESCRIPTION: found.description})
        return found.scheme

    def contents(self, record: TrialRecord) -> Exported:
        """The scheme's files and its description.

        Where engines are built also what `EngineBuilder.export` adds: the builder's model where it is another one than
        holds the packed weights, the engine where this user's cache still holds it. A run without artifacts exports the
        description alone. A member of the front is copied from the run, which then needs no model.

        Args:
            record: A complete trial.

        Raises:
            InputError: The model is not the one that was scored.
        """
        assert record.scores is not None
        kept = kept_scheme(self.loaded, record, artifacts=self._runtime.artifacts)
        files, scheme = kept or ({}, self._scheme(record))
        if kept is None and self._runtime.artifacts:
            artifact = self._materializer.materialize(record.allocation)
            found = artifact.digest
            if found != record.scores.artifact:
                raise InputError(
                    f"trial {record.name}: its model comes out as sha256 {found[:16]}, but "
                    f"{record.scores.artifact[:16]} was scored; use the versions that the manifest names"
                )
            files["model.onnx"] = artifact.data
            if isinstance(self._runtime, EngineBuilder):
                version = str(self.loaded.manifest["identity"][self._runtime.version_key])
                quantized = b"QuantizeLinear" in artifact.engine_model
                engine = self._runtime.export(artifact, self._graph, version, quantized=quantized)
                files |= engine.files
                plan, timed = files.get(PLAN), record.scores.engine
                if plan is not None and timed and hashlib.sha256(plan).hexdigest() != timed:
                    del files[PLAN]  # two builds of one model differ by a few per cent
                    say(f"note: trial {record.name}: the engine in the cache is not the one that was timed; left out")
                scheme[engine.tool] = engine.command
            scheme["sha256"] |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        return Exported(files, scheme)

    def _scheme(self, record: TrialRecord) -> dict[str, Any]:
        assert record.scores is not None
        recorded, accuracy = self.loaded.manifest["identity"], self.loaded.config.objective_set.maximised
        return {
            "study": self.loaded.config.name,
            "trial": record.trial,
            "origin": record.origin,
            **({"refined": record.allocation.numbers} if record.refined else {}),
            "allocation": record.allocation.formats,
            "allocation_digest": record.allocation.digest,
            "sha256": {
                "model.onnx": record.scores.artifact,
                "source_model": recorded["digest.model"],
                "calibration_images": recorded.get("digest.calibration"),
                "evaluation_images": recorded.get("digest.data"),
            },
            "scores": record.scores.to_json(),
            "rescored": rescored(record, self.loaded.rescores, self.loaded.reference, accuracy),
            "weights": self.loaded.config.weights.model_dump(),
            "calibration": self.loaded.config.calibration.model_dump(),
            "runtime": self.loaded.config.runtime.name,
            "versions": versions(self._runtime),
        }
