"""A model file opened as a detector, on a runtime that is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.registry import RUNTIMES, open_runtime
from objectives.runtimes.runtime import Runtime
from objectives.tasks.detection.data.data_yaml import data_yaml_in
from objectives.tasks.detection.detector import Detector, recognise
from search_spaces.errors import InputError
from search_spaces.model_graph import ModelGraph
from tuner.study.study_file import runtime_settings

#: Takes a line for a person.
Tell = Callable[[str], None]


def quiet(line: str) -> None:
    """Tells nobody."""


def usable_runtime(name: str, pairs: Sequence[str] = ()) -> Runtime:
    """The runtime of that name, if this machine can run models on it.

    Args:
        name: Of the registry.
        pairs: ``KEY=VALUE`` of its section in a study.

    Raises:
        InputError: No such runtime, or a key or value is none of its section in a study.
        RuntimeUnavailable: The machine lacks what it needs.
    """
    runtime = open_runtime(runtime_settings(RUNTIMES.check(name), list(pairs)))
    runtime.check()
    if runtime.emulated:
        raise RuntimeUnavailable(f"--runtime {name}: {runtime.emulated}: `tuner build` builds them here, to run there")
    return runtime


def open_detector(
    model: Path,
    *,
    head: str | None = None,
    image_size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    tell: Tell = quiet,
) -> tuple[ModelGraph, Detector]:
    """Reads an ONNX file and how its outputs are read; raises `InputError` where it is no detector."""
    graph = ModelGraph(model, allow_quantized=True, image_size=image_size)
    if graph.narrow:
        tell(f"note: {model}: is in half precision, and runs so")
    return graph, recognise(graph, head=head, image_size=image_size, classes=tuple(classes) if classes else None)


def images_of(data: Path | None, images: Path | None) -> Path:
    """Where images are, of two ways to say it.

    Raises:
        InputError: Both ways were used, or none.
    """
    if data is not None and images is not None:
        raise InputError(f"--images {images}: --data names the images already; give one or the other")
    if data is not None:
        return data_yaml_in(data)
    if images is None:
        raise InputError("no images: give --data DATA.yaml, or --images DIR with --annotations FILE")
    return images
