"""The heavy preparations of a run, each made once and kept in the run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from objectives.devices.gpu import find_gpu
from objectives.evaluation.evaluator import Evaluator as ChildEvaluator
from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.histogram import METHODS
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import Recovered, load_recovered, recover, save_recovered
from objectives.quantization.weights import weight_key
from objectives.runtimes.backends import tensorrt_version
from objectives.runtimes.onnxruntime.profile import profile_costs
from objectives.runtimes.probing import ProbeTable, probe
from objectives.runtimes.replay import ReplayEvaluator, ReplaySettings
from objectives.runtimes.tensorrt.attention import never_built
from objectives.runtimes.tensorrt.engine_cache import EngineCache
from objectives.runtimes.tensorrt.rules import dialect
from objectives.scores import Outcome, Scores
from objectives.sensitivity.range_choice import range_errors
from objectives.sensitivity.reports import write_reports
from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable, weight_costs
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED, Number
from search_spaces.model_graph import ModelGraph
from search_spaces.sensitivity import SensitivityTable
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Blocked
from tuner.prepare.measuring import open_evaluator, weight_settings, worker_count
from tuner.prepare.sensitivity_sources import other_sensitivity
from tuner.study.config import StudyConfig
from tuner.study.inputs import Data, Inputs
from tuner.study.run_folder import RunFolder, read_text, write_durably
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent

# Activation formats whose ranges decide the accuracy, the one that decides most first.
COARSE = (Number.INT8, Number.FP8)
AUTO_FALLBACK = "percentile"


class Evaluator(Protocol):
    """What the study asks of an evaluator, real or replayed."""

    def evaluate(self, allocation: Allocation, front: Mapping[str, Scores] | None = None) -> Outcome:
        """Scores one allocation, in full unless the front so far clearly dominates it."""

    def reference(self) -> Scores:
        """Scores the unquantized model."""


class Workbench:
    """Calibration, sensitivity, artifacts and the evaluator of one run.

    Attributes:
        inputs: What the study read.
        run: Where results are kept.
        step: Shows the progress of one long step.
    """

    def __init__(self, inputs: Inputs, run: RunFolder, steps: Steps = silent) -> None:
        self.inputs = inputs
        self.run = run
        self.step = steps
        self._config = inputs.config

    @property
    def data(self) -> Data:
        """The images.

        Raises:
            InputError: Scores are replayed, so there are none.
        """
        if self.inputs.data is None:
            raise InputError("runtime.name: 'replay' has no images and no artifacts; choose onnxruntime-cpu")
        return self.inputs.data

    @cached_property
    def calibration(self) -> CalibrationTable:
        """Ranges of all activations, from ``calibration.json`` where it is there."""
        if self.run.calibration.is_file():
            return read_calibration(self.run)
        images = self.images(self.data.calibration.images, "preprocessing calibration images")
        settings = self._config.calibration
        with self.step("calibration", len(images)) as done:
            wanted = AUTO_FALLBACK if settings.method == "auto" else settings.method
            table = calibrate(self.inputs.graph, images.singles(), wanted, done)
        if settings.method == "auto":
            table = self._with_best_method(table)
        write_durably(self.run.calibration, table.to_json())
        return table

    def _with_best_method(self, table: CalibrationTable) -> CalibrationTable:
        """The ranges that keep the whole model's detections best when all its activations take the coarsest format."""
        pairs = sweep_pairs(self.inputs.space)
        coarsest = next((n for n in COARSE if any(FORMATS[fmt].activation is n for _, fmt in pairs)), None)
        if coarsest is None:
            return table  # no activation is quantized, so no range is ever read
        scheme = Allocation.of({layer: fmt for layer, fmt in pairs if FORMATS[fmt].activation is coarsest})
        records = self.data.calibration.images[: self._config.sensitivity.images]
        images = self.images(records, "preprocessing calibration images")
        with self.step("choosing the calibration method", len(METHODS)) as done:
            errors = range_errors(
                self.inputs.graph,
                lambda method: self._float_materializer(self.inputs.graph, table.with_method(method)),
                self.data.contract,
                images,
                scheme,
                cuda=self._config.runtime.name == "onnxruntime-cuda",
                progress=done,
            )
        best = min(errors, key=errors.__getitem__)
        self.run.log("calibration", chosen=best, divergence=errors)
        return table.with_method(best)

    @cached_property
    def recovered(self) -> dict[str, Recovered]:
        """Weights of the formats that want them recovered, from the run's cache where they are there."""
        if self.run.recovered.is_file():
            return read_recovered(self.run)
        settings, graph = weight_settings(self._config.weights), self.inputs.graph
        layers = {layer.name: layer for layer in graph.quantizable}
        pairs = [(layers[name], FORMATS[fmt]) for name, fmt in sweep_pairs(self.inputs.space)]
        wanted = [pair for pair in pairs if settings.recovers(*pair)]
        if not wanted or self._config.replayed:
            return {}
        records = self.data.calibration.images[: self._config.weights.images]
        images = self.images(records, "preprocessing calibration images")
        count = len({weight_key(*pair, settings) for pair in wanted})
        with self.step("quantizing weights", count) as done:
            found = recover(graph, images.singles, wanted, settings, done)
        save_recovered(self.run.recovered, found)
        return found

    @cached_property
    def graph(self) -> ModelGraph:
        """The model at the study's batch; calibration and sensitivity take its images one by one."""
        batch = self._config.runtime.batch
        return self.inputs.graph if batch == 1 else ModelGraph(self.inputs.graph.path, batch=batch)

    @cached_property
    def materializer(self) -> Materializer:
        """Assembles the artifacts of this run."""
        return make_materializer(self._config, self.graph, self.calibration, recovered=self.recovered)

    def images(self, records: Sequence[ImageRecord], title: str = "preprocessing images") -> PreprocessedImages:
        """Preprocessed images, from the run's cache where they are there."""
        size = self.data.contract.image_size
        with self.step(title, len(records)) as done:
            return PreprocessedImages.build(records, size, self.run.image_cache, done)

    def prepare_images(self) -> None:
        """Fills the cache of the images that the evaluator will open."""
        if self.inputs.data is not None:
            self.images(self.data.full.images)

    @cached_property
    def sensitivity(self) -> SensitivityTable:
        """The prior of the search; measured, read from a file or, for a replay, synthetic."""
        run, settings = self.run, self._config.sensitivity
        if run.sensitivity.exists():
            return SensitivityTable.from_json(read_text(run.sensitivity))
        if settings.method == "file":
            assert settings.file is not None
            table = SensitivityTable.from_json(read_text(Path(settings.file)))
        elif self._config.replayed:
            graph = self.inputs.graph
            table = self._replay.sensitivity(self._config.space.formats, graph.digest)
        elif settings.method == "onnx":
            table = self.onnx_sensitivity()
        else:
            table = other_sensitivity(self)
        write_reports(table, run.path)
        write_reports(table, run.path, "sensitivity")
        return table

    @cached_property
    def costs(self) -> CostTable:
        """What each choice is expected to cost: latency where that is an objective, else weight bytes.

        Kept in the run, for measured times differ from look to look.
        """
        path = self.run.costs
        if not path.exists():
            write_durably(path, self._costs().to_json())
        return CostTable.from_json(read_text(path))

    def _costs(self) -> CostTable:
        runtime = self._config.runtime
        if "latency_ms" in self._config.objectives and self._config.replayed:
            return self._replay.costs()
        if "latency_ms" in self._config.objectives and runtime.name == "tensorrt":
            return self.probed.cost_table()
        if "latency_ms" in self._config.objectives and runtime.name == "onnxruntime-cpu":
            pixels = self.images(self.data.search.images[:1]).batch(0, 1)
            image = np.repeat(pixels, runtime.batch, axis=0)
            return profile_costs(self.graph, self.materializer, image, runtime.threads)
        return weight_costs(self.inputs.graph.layers)

    @property
    def blocked(self) -> Blocked:
        """Pairs that the target cannot build, or gains nothing from, as far as probing found them."""
        if self._config.runtime.name != "tensorrt":
            return Blocked({})
        config = self._config
        size = "weight_mib" in config.objectives or config.constraints.max_weight_mib is not None
        return self.probed.kept_out(self.inputs.space, size)

    @property
    def probed(self) -> ProbeTable:
        """What probing found.

        Raises:
            InputError: The run was not probed.
        """
        if not self.run.probe.is_file():
            raise InputError(f"run {str(self.run.path)!r}: not probed yet; `tuner resume {self.run.path}` goes on")
        return ProbeTable.from_json(read_text(self.run.probe))

    def probe(self, evaluator: Evaluator) -> None:
        """Finds out what the target builds and what it costs, unless the run did; only engines need it.

        The table is kept in the run, and per device and TensorRT version among the user's caches, so that another
        study of the same model, ranges and weights starts with it.

        Raises:
            RuntimeUnavailable: Not even the unquantized model can be built.
        """
        if self._config.runtime.name != "tensorrt" or self.run.probe.is_file():
            return
        assert isinstance(evaluator, ChildEvaluator)
        layers = [layer.name for layer in self.inputs.graph.quantizable]
        wanted: dict[str, list[str]] = {}
        for layer, fmt in sweep_pairs(self.inputs.space):
            wanted.setdefault(fmt, []).append(layer)
        kept = self._probe_cache(wanted)
        if kept.is_file():
            table = ProbeTable.from_json(read_text(kept))
        else:
            with self.step("probing formats", len(wanted)):
                spared = never_built(self.inputs.graph, tensorrt_version())
                reasons = {(layer, "int8"): why for layer, why in spared.items()}
                table = probe(evaluator, layers, wanted, say, reasons)
            write_durably(kept, table.to_json())
        for (layer, fmt), reason in table.blocked.pairs.items():
            self.run.log("blocked", layer=layer, format=fmt, reason=reason)
        for (layer, fmt), reason in table.idle.pairs.items():
            self.run.log("idle", layer=layer, format=fmt, reason=reason)
        write_durably(self.run.probe, table.to_json())

    def _probe_cache(self, wanted: Mapping[str, Sequence[str]]) -> Path:
        """File of this probe among the caches of the device: named by all that decides its outcome."""
        version, config = tensorrt_version(), self._config
        facts: list[Any] = [self.inputs.graph.digest, wanted, config.runtime.model_dump(), config.weights.model_dump()]
        facts.append(self.calibration.to_json())
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return EngineCache(version, find_gpu(config.runtime.device)).folder / "probes" / f"{name}.json"

    @contextmanager
    def evaluator(self) -> Iterator[Evaluator]:
        """Opens the evaluator."""
        if self._config.replayed:
            yield self._replay
            return
        with open_evaluator(self) as evaluator:
            yield evaluator

    @property
    def _replay(self) -> ReplayEvaluator:
        file = self._config.runtime.file
        return ReplayEvaluator(self.inputs.graph.quantizable, ReplaySettings.read(Path(file) if file else None))

    def onnx_sensitivity(self) -> SensitivityTable:
        """Measures every pair of the space on the ONNX graph itself."""
        from objectives.sensitivity.onnx_sweep import sweep

        pairs = sweep_pairs(self.inputs.space)
        records = self.data.calibration.images[: self._config.sensitivity.images]
        images = self.images(records, "preprocessing sensitivity images")
        with self.step("sensitivity", len(pairs)) as done:
            return sweep(
                self.inputs.graph,
                self.float_materializer(self.inputs.graph),
                self.data.contract,
                images,
                pairs,
                self.run.cache / "sensitivity.jsonl",
                settings={
                    "weights": json.dumps(self._config.weights.model_dump()),
                    "calibration": f"{self.calibration.method}, {self.calibration.images} images",
                    "calibration_images": self.data.calibration.digest,
                    "runtime": self._config.runtime.name,
                },
                threads=worker_count(),
                cuda=self._config.runtime.name == "onnxruntime-cuda",
                progress=done,
            )

    def float_materializer(self, graph: ModelGraph) -> Materializer:
        """For runs in ONNX Runtime: of TensorRT's two dialects the one in float32, which runs faster and exactly there.

        Args:
            graph: The model at the batch that it will be given.
        """
        return self._float_materializer(graph, self.calibration)

    def _float_materializer(self, graph: ModelGraph, table: CalibrationTable) -> Materializer:
        names = {name for formats in self.inputs.space.formats for name in formats}
        float8 = any(FORMATS[name].activation is Number.FP8 for name in names)
        plain = self._config.runtime.name != "tensorrt" or float8
        return make_materializer(self._config, graph, table, None if plain else "8.6", self.recovered)


def sweep_pairs(space: SearchSpace) -> list[tuple[str, str]]:
    """All (layer, format) pairs that the space allows, the unquantized format aside."""
    allowed = zip(space.groups, space.formats, strict=True)
    return [(layer, fmt) for g, fs in allowed for layer in g.layers for fmt in fs if fmt != UNQUANTIZED]


def read_calibration(run: RunFolder) -> CalibrationTable:
    """Reads the ranges of a run.

    Raises:
        InputError: The run has none.
    """
    if not run.calibration.is_file():
        raise InputError(f"run {str(run.path)!r}: not calibrated yet; `tuner resume {run.path}` goes on")
    return CalibrationTable.from_json(read_text(run.calibration))


def read_recovered(run: RunFolder) -> dict[str, Recovered]:
    """Reads the recovered weights of a run; empty where none of its formats wanted them."""
    return load_recovered(run.recovered) if run.recovered.is_file() else {}


def make_materializer(
    config: StudyConfig,
    graph: ModelGraph,
    table: CalibrationTable,
    version: str | None = None,
    recovered: Mapping[str, Recovered] | None = None,
) -> Materializer:
    """Builds the materializer of a study.

    Args:
        config: The study.
        graph: Its model.
        table: Its ranges.
        version: TensorRT's, where the study runs on it: by default the installed one.
        recovered: Its recovered weights.
    """
    name: str = config.runtime.name
    if name == "tensorrt":
        name = dialect(version or tensorrt_version())
    return Materializer(graph, table, name, weight_settings(config.weights), recovered)
