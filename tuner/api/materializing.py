"""Writes the quantized model of one scheme, without a study."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from objectives.quantization.artifact import Artifact
from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.coverage import Coverage
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import Recovered, recover
from objectives.quantization.weights import WeightSettings
from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
from objectives.runtimes.runtime import NotFiniteError, Runtime
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.data_yaml import data_yaml_in
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.plausibility import check_model
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError, nearest
from search_spaces.formats import FORMATS, UNQUANTIZED, Granularity, get_format
from search_spaces.limits import STEP_SECONDS, scratch, step
from search_spaces.model_graph import ModelGraph
from search_spaces.regular import read_regular
from tuner.api.detectors import Tell, quiet
from tuner.prepare.torch_scheme import difference, materialize_by_torch
from tuner.study.model_file import onnx_file
from tuner.terminal.progress import Steps, silent

_WEIGHT_IMAGES = 32  # of the list, as in a study


@dataclass(frozen=True)
class Materialized:
    """A scheme as a file.

    Attributes:
        path: The ONNX file.
        sha256: Of it, hex.
        average_weight_bits: 8 x bytes of the weights / their elements.
        weight_bytes: Bytes of all layer weights as their formats store them.
        quantized_layers: Layers whose weights are quantized.
        layers: Layers that could be.
        seconds: Time that the assembly took, calibration aside.
        compared: What another tool's model of the same scheme differs by; empty where there is none.
        float32: What computes in float32 there, as the precision report has it.
    """

    path: Path
    sha256: str
    average_weight_bits: float
    weight_bytes: int
    quantized_layers: int
    layers: int
    seconds: float
    compared: Mapping[str, float] = field(default_factory=dict)
    float32: Any = None

    def figures(self) -> dict[str, Any]:
        """All of it as a flat JSON object, the precision report aside."""
        named = {name: value for name, value in vars(self).items() if name not in ("path", "compared", "float32")}
        return {"out": str(self.path), **named, **self.compared}


def materialize(
    model: str | Path,
    out: str | Path,
    *,
    uniform: str | None = None,
    scheme: Allocation | Mapping[str, str] | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    calibration_images: int | None = None,
    method: str = "percentile",
    weights: str | None = None,
    granularity: str = "auto",
    by: str = "onnx",
    runtime: str = DEFAULT_RUNTIME,
    runtime_version: str | None = None,
    compute_capability: str | None = None,
    head: str | None = None,
    classes: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    tell: Tell = quiet,
    steps: Steps = silent,
) -> Materialized:
    """Quantizes a model by one scheme and writes it as an ONNX file in a runtime's own form.

    Args:
        model: ONNX file, or Ultralytics checkpoint (``.pt``).
        out: File to write; must not exist.
        uniform: One format for all layers that can have it, e.g. ``int8``; or give `scheme`.
        scheme: ``{layer: format}``, or an allocation.
        data: Data yaml, whose ``train`` split calibrates; or give `calibration`.
        calibration: List or folder of calibration images, or data yaml.
        calibration_images: So many of them.
        method: How ranges are found: ``max``, ``percentile``, ``entropy`` or ``mse``.
        weights: ``auto``, ``corrected``, ``rtn``, ``bias`` or ``gptq``; None: what the runtime gains by.
        granularity: Of the scales: ``auto``, ``per_tensor``, ``per_channel`` or ``block``.
        by: ``onnx``, or ``torch``: ModelOpt's quantizers on a checkpoint, exported.
        runtime: What the file is for.
        runtime_version: Its version, where that decides the file; None for the installed one.
        compute_capability: Of the GPU that the file is for; None for this one's.
        head: How outputs are read, where the graph does not tell.
        classes: Class names, where the model does not tell.
        image_size: Height and width, pixels, where the model leaves them open.
        tell: Takes lines for a person.
        steps: Shows progress.

    Raises:
        InputError: Something that was named is missing, broken or contradictory, or the scheme cannot be built.
        RuntimeUnavailable: A package that is needed is missing.
    """
    model, out = Path(model), Path(out)
    if (uniform is None) == (scheme is None):
        raise InputError("materialize: give either --uniform FORMAT or --scheme FILE")
    known = [entry.value for entry in Granularity]
    if granularity not in known:
        hint = nearest(granularity, known)
        raise InputError(f"--granularity {granularity!r}: is not one of {', '.join(known)}{hint}")
    if out.exists():
        raise InputError(f"--out {str(out)!r}: exists; choose another file")
    if not out.parent.is_dir():
        raise InputError(f"--out {str(out)!r}: its folder does not exist; make it first")
    if by not in ("onnx", "torch"):
        raise InputError(f"--by {by!r}: is not one of onnx, torch{nearest(by, ('onnx', 'torch'))}")
    if data is not None and calibration is not None:
        raise InputError(f"--calibration {calibration}: --data calibrates already; give one or the other")
    if data is None and calibration is None:
        raise InputError("no calibration images: give --calibration LIST, or --data DATA.yaml")
    source = Path(calibration) if calibration is not None else data_yaml_in(Path(data or ""))
    target = open_runtime(parse_settings({"name": RUNTIMES.check(runtime)}))
    settings = WeightSettings(weights or target.settings.weights_method, Granularity(granularity))
    dialect = target.dialect(runtime_version, compute_capability)
    graph = ModelGraph(onnx_file(model, head=head, image_size=image_size, runtime=target), image_size=image_size)
    target.check_operators(graph)
    if graph.note:
        tell(graph.note)
    coverage = Coverage.of(graph)
    contract = recognise(graph, head=head, image_size=image_size, classes=tuple(classes) if classes else None)
    if contract.note:
        tell(f"note: {model}: {contract.note}")
    allocation = _uniform(graph, uniform, tell) if uniform is not None else _allocation(scheme)
    chosen = load_calibration(source, calibration_images)
    for line in chosen.notes:
        tell(f"note: {line}")
    with scratch() as folder:
        with steps("preprocessing images", len(chosen)) as done:
            pixels = PreprocessedImages.build(chosen.images, contract.preprocessing, Path(folder), done)
        check_model(graph, contract, pixels)
        with steps("calibration", len(pixels)) as done:
            table = calibrate(graph, pixels.singles(), method, done)
        recovered = _recovered(graph, allocation, settings, pixels.singles, tell, steps)
        started = time.perf_counter()
        artifact = Materializer(graph, table, dialect, settings, recovered).materialize(allocation)
        seconds = time.perf_counter() - started
        seconds_at_most = target.settings.limit_s if isinstance(target, EngineBuilder) else STEP_SECONDS
        with step(model, "checking its scheme", seconds_at_most):
            artifact.check()
            left = _try_out(target, artifact, table, graph, next(iter(pixels.singles())), by)
        if left:
            tell(f"checked, but not run: {left}")
        for line in artifact.precision.lines():
            tell(line)
        compared: Mapping[str, float] = {}
        try:
            if by == "torch":
                seconds = materialize_by_torch(model, graph, allocation, pixels, settings.granularity, out)
                compared = difference(out, artifact, contract, pixels)
            else:
                artifact.save(out)
        except OSError as error:
            raise InputError(f"--out {str(out)!r}: cannot be written ({error.strerror})") from None
    if coverage.warning:
        tell(f"warning: {coverage.warning}")
    return Materialized(
        out,
        hashlib.sha256(read_regular(out, None)).hexdigest(),
        artifact.size.average_weight_bits,
        artifact.size.weight_bytes,
        sum(FORMATS[fmt].quantizes_weight for _, fmt in allocation.items),
        coverage.layers,
        seconds,
        compared,
        artifact.precision.to_json(),
    )


def _allocation(scheme: Allocation | Mapping[str, str] | None) -> Allocation:
    assert scheme is not None
    return scheme if isinstance(scheme, Allocation) else Allocation.of(scheme)


def _uniform(graph: ModelGraph, name: str, tell: Tell) -> Allocation:
    """One format wherever a layer can have it."""
    fmt = get_format(name)
    lacking = {layer.name: why for layer in graph.quantizable if (why := layer.lacks(fmt))}
    fitting = [layer.name for layer in graph.quantizable if layer.name not in lacking]
    for layer, why in lacking.items():
        tell(f"{layer} stays {UNQUANTIZED}: {why.partition(';')[0]}")
    return Allocation.uniform(fitting, name)


def _recovered(
    graph: ModelGraph,
    allocation: Allocation,
    settings: WeightSettings,
    images: Callable[[], Iterator[NDArray[np.float32]]],
    tell: Tell,
    steps: Steps,
) -> dict[str, Recovered]:
    """Reconstructed weights of the layers whose formats want them."""
    layers = {layer.name: layer for layer in graph.quantizable}
    pairs = [(layers[name], FORMATS[fmt]) for name, fmt in allocation.items if name in layers and fmt in FORMATS]
    whole = [layer for layer, fmt in pairs if fmt.quantizes_weight and not settings.blocks(layer, fmt)]
    if settings.granularity is Granularity.BLOCK and whole:
        tell(
            f"--granularity block: {len(whole)} of {len(pairs)} layers keep scales per channel, for their input "
            f"channels are no multiple of {settings.block_size} or their kernel sums over all of them: "
            f"{', '.join(layer.name for layer in whole[:3])}{' ...' if len(whole) > 3 else ''}"
        )
    wanted = [pair for pair in pairs if settings.recovers(*pair)]
    if not wanted:
        return {}
    with steps("quantizing weights", len(wanted)) as done:
        return recover(graph, lambda: islice(images(), _WEIGHT_IMAGES), wanted, settings, done)


def _try_out(
    target: Runtime, artifact: Artifact, table: CalibrationTable, graph: ModelGraph, image: NDArray[np.float32], by: str
) -> str:
    """Runs the file once; why not, where it was not."""
    try:
        return target.try_out(artifact.data, image) if by == "onnx" else ""
    except NotFiniteError:
        if not table.infinite(graph.outputs):
            raise
        return "the unquantized model's own outputs are infinite on the calibration images"
