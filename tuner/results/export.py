"""Exports one scheme: the model that was scored, and a description that lets anyone check it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from objectives.quantization.materialize import Materializer
from objectives.runtimes.engine_builder import PLAN, EngineBuilder
from objectives.runtimes.registry import open_runtime
from search_spaces.durable import durable_folder, write_durably
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from tuner.prepare.calibration import read_calibration
from tuner.prepare.materializers import batched_graph, make_materializer
from tuner.prepare.refinements import read_refined
from tuner.prepare.weights import read_weights
from tuner.results.front_files import rescored
from tuner.results.loaded import LoadedRun
from tuner.search.records import TrialRecord
from tuner.study.identity import versions
from tuner.study.inputs import read_model
from tuner.terminal.console import say


class Exporter:
    """Exports trials of one run; the model is read once for all of them.

    Attributes:
        loaded: The run.
    """

    def __init__(self, loaded: LoadedRun, graph: ModelGraph | None = None) -> None:
        self.loaded = loaded
        self._materializer: Materializer | None = None
        self._runtime = open_runtime(loaded.config.runtime)
        if self._runtime.artifacts:
            graph = graph or read_model(loaded.config.model, self._runtime)
            expected = loaded.manifest["identity"]["digest.model"]
            if graph.digest != expected:
                raise InputError(f"{graph.path}: not the model of this run (sha256 {expected}); restore it")
            graph = batched_graph(graph, loaded.config.runtime.batch)
            version = loaded.manifest["identity"].get(self._runtime.version_key)
            self._graph = graph
            self._materializer = make_materializer(
                loaded.config,
                graph,
                read_calibration(loaded.run),
                read_weights(loaded.run),
                version,
                read_refined(loaded.run),
            )

    def export(self, record: TrialRecord, folder: Path) -> dict[str, Any]:
        """Writes ``model.onnx`` and ``scheme.json`` and returns the latter's content.

        Where engines are built also what `EngineBuilder.export` adds: the builder's model where it is another one than
        holds the packed weights, the engine where this user's cache still holds it. A run without artifacts exports the
        description alone.

        Args:
            record: A complete trial.
            folder: Where to; must not exist, or be empty.

        Raises:
            InputError: The folder holds something or cannot be written, or the model is not the one that was
                scored.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"--out {str(folder)!r}: exists and is not empty; choose another folder")
        assert record.scores is not None
        files: dict[str, bytes] = {}
        scheme = self._scheme(record)
        if self._materializer is not None:
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
        try:
            with durable_folder(folder) as staging:
                for name, data in files.items():
                    write_durably(staging / name, data)
                write_durably(staging / "scheme.json", json.dumps(scheme, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"--out {str(folder)!r}: cannot be written ({error.strerror})") from None
        return scheme

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
