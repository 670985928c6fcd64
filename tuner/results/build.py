"""Engines of finished schemes for other GPUs than this machine's: built here, run there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from objectives.quantization.artifact import Artifact
from objectives.quantization.materialize import Materializer
from objectives.runtimes.engine_builder import BuildError, EngineBuilder
from objectives.runtimes.registry import open_runtime
from objectives.runtimes.settings import RuntimeSettings
from objectives.scores import Size
from search_spaces.durable import durable_folder, write_durably
from search_spaces.errors import InputError
from search_spaces.limits import step
from search_spaces.model_graph import ModelGraph
from search_spaces.spawned import NoAnswer, Spawned, calling
from tuner.prepare.calibration import read_calibration
from tuner.prepare.materializers import batched_graph
from tuner.prepare.refinements import read_refined
from tuner.prepare.weights import read_weights, weight_settings
from tuner.results.loaded import LoadedRun
from tuner.search.records import TrialRecord
from tuner.study.inputs import read_model
from tuner.terminal.progress import Steps, silent


@dataclass(frozen=True)
class Built:
    """One engine, or why there is none.

    Attributes:
        model: Which scheme, ``trial-12``, or the file's name.
        compute_capability: Of the GPU that it is for.
        engine: Its file, relative to the output folder; empty where it was not built.
        engine_bytes: Its size.
        model_bytes: Size of the ONNX that it was built from.
        seconds: Of the build; 0 where it lay in the cache.
        sha256: Of the engine.
        command: Builds the same engine without us.
        error: Why there is no engine; empty where there is one.
    """

    model: str
    compute_capability: str
    engine: str = ""
    engine_bytes: int = 0
    model_bytes: int = 0
    seconds: float = 0.0
    sha256: str = ""
    command: str = ""
    error: str = ""


#: A scheme by its name, and what makes its model for a builder.
Scheme = tuple[str, "SchemeSource"]


class SchemeSource:
    """Writes one scheme, or one model file, for any builder.

    Args:
        graph: The model; of a file the file itself.
        loaded: The run; None for a file.
        record: The trial; None for a file.
    """

    def __init__(self, graph: ModelGraph, loaded: LoadedRun | None = None, record: TrialRecord | None = None) -> None:
        self._graph = graph
        self._loaded = loaded
        self._record = record

    def artifact(self, builder: EngineBuilder) -> Artifact:
        """The model in a builder's dialect.

        Raises:
            InputError: The scheme holds a format that the builder, or its GPU, cannot have.
        """
        if self._loaded is None or self._record is None:
            model = builder.file_model(self._graph)
            data = model if isinstance(model, bytes) else model.read_bytes()
            return Artifact(data, Size(0, 0.0, 0))
        loaded = self._loaded
        materializer = Materializer(
            self._graph,
            read_calibration(loaded.run),
            builder.dialect(),
            weight_settings(loaded.config.weights),
            read_weights(loaded.run),
            read_refined(loaded.run),
        )
        return materializer.materialize(self._record.allocation)


def schemes_of(loaded: LoadedRun, trials: Sequence[int]) -> list[Scheme]:
    """The schemes of a run.

    Args:
        loaded: The run.
        trials: Which; none for its front.

    Raises:
        InputError: A trial has no scores, the run has no front yet or makes no artifacts, or its model is gone.
    """
    runtime = open_runtime(loaded.config.runtime)
    if not runtime.artifacts:
        raise InputError(f"run {str(loaded.run.path)!r}: {runtime.name} makes no artifacts, there is nothing to build")
    records = [loaded.record(number) for number in trials] or [member.record for member in loaded.front]
    if not records:
        raise InputError(f"run {str(loaded.run.path)!r}: has no front yet; `tuner resume {loaded.run.path}` goes on")
    graph = read_model(loaded.config.model, runtime)
    expected = loaded.manifest["identity"]["digest.model"]
    if graph.digest != expected:
        raise InputError(f"{graph.path}: not the model of this run (sha256 {expected}); restore it")
    graph = batched_graph(graph, loaded.config.runtime.batch)
    return [(f"trial-{record.name}", SchemeSource(graph, loaded, record)) for record in records]


def build_engines(
    schemes: Sequence[Scheme], targets: Sequence[RuntimeSettings], out: Path, steps: Steps = silent
) -> list[Built]:
    """Builds every scheme for every target, into a folder of one subfolder a scheme, with ``build.json``.

    Args:
        schemes: What to build.
        targets: Settings of a runtime that builds ahead of time, one for each GPU.
        out: New folder.
        steps: Shows progress.

    Raises:
        InputError: The folder exists, or nothing at all could be built.
        RuntimeUnavailable: The builder is not installed.
    """
    if out.exists():
        raise InputError(f"--out {str(out)!r}: exists; choose another folder")
    try:
        with durable_folder(out) as staging, steps("building engines", len(schemes) * len(targets)) as done:
            found = []
            for count, built in enumerate(_build_all(schemes, targets, staging), 1):
                found.append(built)
                done(count)
            if not any(built.engine for built in found):
                raise InputError(f"no engine was built: {found[0].model}: {found[0].error}")
            write_durably(staging / "build.json", json.dumps([asdict(built) for built in found], indent=1) + "\n")
    except OSError as error:
        raise InputError(f"--out {str(out)!r}: cannot be written ({error.strerror})") from None
    return found


def _build_all(schemes: Sequence[Scheme], targets: Sequence[RuntimeSettings], folder: Path) -> Iterator[Built]:
    """In a process of its own, which a crash of the builder may end."""
    with Spawned("building", calling) as builds:
        for name, source in schemes:
            (folder / name).mkdir()
            for settings in targets:
                builder = open_runtime(settings)
                if not isinstance(builder, EngineBuilder):
                    raise InputError(f"--runtime {settings.name}: builds no engines")
                builder.check()
                target = builder.target
                try:
                    artifact = source.artifact(builder)
                except InputError as error:
                    yield Built(name, target, error=str(error))
                    continue
                model = artifact.engine_model
                write_durably(folder / name / "model.onnx", model)
                try:
                    with step(name, f"building it for {target}"):
                        asked = builds.ask(_build, settings, model, seconds=settings.limit_s)
                    plan, seconds, error_text = asked
                except NoAnswer as error:
                    plan, seconds, error_text = None, 0.0, str(error)
                if plan is None:
                    yield Built(name, target, model_bytes=len(model), error=error_text)
                    continue
                data = plan.read_bytes()
                file = f"{name}/engine-sm{target.replace('.', '')}.plan"
                write_durably(folder / file, data)
                digest = hashlib.sha256(data).hexdigest()
                command = builder.command(file.split("/")[1])
                yield Built(name, target, file, len(data), len(model), round(seconds, 3), digest, command)


def _build(settings: RuntimeSettings, model: bytes) -> tuple[Path | None, float, str]:
    """The plan in the cache, or why there is none."""
    builder = open_runtime(settings)
    assert isinstance(builder, EngineBuilder)
    try:
        return *builder.build(model, None), ""
    except BuildError as error:
        return None, 0.0, str(error)
