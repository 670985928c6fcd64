"""Opens models on a runtime; an engine is built in a process of its own first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from objectives.devices.lock import give_way
from objectives.runners.runner import Runner
from objectives.runtimes.engine_builder import BuildError, EngineBuilder
from objectives.runtimes.registry import open_runtime
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.settings import RuntimeSettings
from search_spaces.errors import InputError
from search_spaces.limits import renew, step
from search_spaces.model_graph import ModelGraph
from search_spaces.spawned import NoAnswer, Spawned, calling


@contextmanager
def open_file(runtime: Runtime, path: Path, image_size: tuple[int, int] | None = None) -> Iterator[Runner]:
    """Opens a model file, quantized or not, at the batch of the runtime's settings.

    Args:
        runtime: Where.
        path: The file.
        image_size: Height and width, pixels, of a model that leaves them open; None for what its metadata states.

    Raises:
        InputError: It cannot be loaded or built.
        RuntimeUnavailable: The machine lacks what the runtime needs.
    """
    model: bytes | Path = path
    graph: ModelGraph | None = None
    if runtime.settings.batch != 1 or runtime.reference_is_scheme:
        graph = ModelGraph(path, allow_quantized=True, batch=runtime.settings.batch, image_size=image_size)
        model = runtime.file_model(graph)
    with step(path, f"running it on {runtime.name}"), open_model(runtime, model, graph) as runner:
        yield runner


@contextmanager
def open_model(runtime: Runtime, model: bytes | Path, graph: ModelGraph | None) -> Iterator[Runner]:
    """Opens a model in the runtime's own dialect.

    Args:
        runtime: Where.
        model: Serialized ONNX, or its file.
        graph: The unquantized model, where `model` is one of its schemes.

    Raises:
        InputError: It cannot be loaded or built.
        RuntimeUnavailable: The machine lacks what the runtime needs.
    """
    if isinstance(runtime, EngineBuilder):
        model = model if isinstance(model, bytes) else model.read_bytes()
        if runtime.cached(model, graph) is None:
            _build_apart(runtime, graph, model)
    try:
        with runtime.hold(alone=False), runtime.open(model, graph) as opened:
            yield opened.runner
    except BuildError as error:
        raise InputError(f"{runtime.title} cannot build the model: {error}") from None


def _build_apart(runtime: Runtime, graph: ModelGraph | None, model: bytes) -> None:
    """Builds an engine in a process of its own and leaves it in the cache: one that has built times engines wrongly.

    Raises:
        InputError: It cannot be built, or its builder died.
    """

    def meanwhile() -> None:
        # The builder may wait behind a measurement that waits for an engine that we hold open.
        give_way(runtime.lock_name)
        renew()

    with Spawned("building", calling) as builder:
        try:
            what = (_build, runtime.settings, graph, model)
            problem = builder.ask(*what, seconds=runtime.settings.limit_s, meanwhile=meanwhile)
        except NoAnswer as error:
            problem = str(error)
    if problem:
        raise InputError(f"{runtime.title} cannot build the model: {problem}")


def _build(settings: RuntimeSettings, graph: ModelGraph | None, model: bytes) -> str:
    """Builds in this process; returns what went wrong, as the error itself does not survive the way back."""
    runtime = open_runtime(settings)
    if not isinstance(runtime, EngineBuilder):
        raise TypeError(f"{runtime.name} builds no engines")
    try:
        with runtime.hold(alone=False):
            runtime.build(model, graph)
    except BuildError as error:
        return str(error)
    return ""
