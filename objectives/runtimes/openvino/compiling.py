"""From ONNX to a compiled model, to the bytes that keep it, and back; and to the files of OpenVINO's own form."""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.loader import Loader
from objectives.runtimes.openvino.devices import core, first_line, properties
from objectives.runtimes.openvino.settings import OpenVinoSettings
from search_spaces.limits import scratch

if TYPE_CHECKING:
    import openvino

#: The two files of OpenVINO's own form, and what `benchmark_command` has no word for.
GRAPH, WEIGHTS, CONFIG = Loader.OPENVINO.value, "model.bin", "benchmark_app.json"


def compiled_of(
    model: bytes, settings: OpenVinoSettings, more: Mapping[str, Any] | None = None
) -> openvino.CompiledModel:
    """Compiles serialized ONNX, with `more` properties.

    Raises:
        BuildError: It cannot be read or compiled, or the device took another precision or number of streams.
    """
    wanted = {**properties(settings), **(more or {})}
    try:
        compiled = core().compile_model(_read(model), settings.device_name, wanted)
    except RuntimeError as error:
        raise BuildError(first_line(error)) from None
    _hold_to(compiled, settings)
    return compiled


def build(model: bytes, settings: OpenVinoSettings) -> tuple[bytes, float]:
    """Compiles serialized ONNX; returns what `load` takes, and the seconds that it took.

    Raises:
        BuildError: As `compiled_of`.
    """
    begin = time.perf_counter()
    kept = compiled_of(model, settings).export_model()
    return kept if isinstance(kept, bytes) else bytes(kept.getvalue()), time.perf_counter() - begin


def load(kept: bytes, settings: OpenVinoSettings, more: Mapping[str, Any] | None = None) -> openvino.CompiledModel:
    """Loads what `build` made, with `more` properties.

    Raises:
        BuildError: It cannot be loaded.
    """
    wanted = {**properties(settings), **(more or {})}
    try:
        compiled = core().import_model(io.BytesIO(kept), settings.device_name, wanted)
    except RuntimeError as error:
        raise BuildError(first_line(error)) from None
    _hold_to(compiled, settings)
    return compiled


def own_files(model: bytes) -> dict[str, bytes]:
    """``model.xml`` and ``model.bin`` of serialized ONNX: the graph as OpenVINO reads it, before it is compiled.

    Raises:
        BuildError: It cannot be read.
    """
    import openvino

    with scratch() as folder:
        path = Path(folder) / GRAPH
        graph = _read(model)
        graph.set_friendly_name("model")
        for place, node in enumerate(graph.get_ordered_ops()):
            if node.get_friendly_name() == node.get_name():  # a number that counts all nodes of this process
                node.set_friendly_name(f"{node.get_type_name()}_{place}")
        # Weights stay in the types that the scheme gave them.
        openvino.save_model(graph, path, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in (GRAPH, WEIGHTS)}


def benchmark_command(settings: OpenVinoSettings) -> str:
    """The line of OpenVINO's own tool that compiles and times a model as we do: one synchronous request."""
    words = ["benchmark_app", "-m", GRAPH, "-d", settings.device_name, "-hint", "none", "-nstreams", "1"]
    if settings.device_name == "CPU":
        words += ["-nthreads", str(settings.threads), "-pin", "NO"]
    words += ["-infer_precision", settings.precision, "-load_config", CONFIG]
    return shlex.join([*words, "-api", "sync", "-t", "10"])


def benchmark_config(settings: OpenVinoSettings) -> bytes:
    """The file that the line names: weights in few bits do not make activations int8."""
    return json.dumps({settings.device_name: {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}}).encode() + b"\n"


def _read(model: bytes) -> openvino.Model:
    try:
        return core().read_model(model)
    except RuntimeError as error:
        raise BuildError(first_line(error)) from None


def _hold_to(compiled: openvino.CompiledModel, settings: OpenVinoSettings) -> None:
    """A device must not choose another precision in silence, nor infer several images at once."""
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != settings.precision:
        raise BuildError(f"{settings.device_name} computes in {found}; set runtime.precision to it to have that")
    if (streams := compiled.get_property("NUM_STREAMS")) != 1:
        raise BuildError(f"{settings.device_name} insists on {streams} streams, and one inference is to be timed")
