"""Commands below a study: materialize one scheme, measure the sensitivity, compare its methods."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from objectives.runtimes import DEFAULT_RUNTIME
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.limits import STEP_SECONDS, scratch, step
from search_spaces.reading import MAX_TEXT_BYTES, read_sized
from tuner.cli.options import Classes, Head, ImageSize, Json, Model, Runtime, Study, parse_classes, parse_size
from tuner.terminal.console import say, show

if TYPE_CHECKING:
    from tuner.study.inputs import Inputs
    from tuner.study.run_folder import RunFolder


@dataclass(frozen=True)
class _Prepared:
    """Manifest of a folder that holds measurements below a study."""

    identity: dict[str, Any]


_WEIGHT_IMAGES = 32  # of the list, as in a study


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(materialize)
    app.command()(sensitivity)
    app.command()(compare)


def materialize(
    model: Model,
    *,
    calibration: Annotated[
        Path, typer.Option("--calibration", metavar="LIST", help="Image list, folder, or data yaml (its train).")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="ONNX file to write.")],
    uniform: Annotated[str | None, typer.Option("--uniform", metavar="FORMAT", help="One format for all.")] = None,
    scheme: Annotated[Path | None, typer.Option("--scheme", metavar="FILE", help="A scheme.json.")] = None,
    weights: Annotated[str, typer.Option("--weights", metavar="METHOD", help="auto, rtn or gptq.")] = "auto",
    granularity: Annotated[
        str, typer.Option("--granularity", metavar="G", help="auto, per_tensor, per_channel or block.")
    ] = "auto",
    method: Annotated[
        str, typer.Option("--method", help="Calibration: max, percentile, entropy or mse.")
    ] = "percentile",
    images: Annotated[int | None, typer.Option("--calibration-images", min=1, help="So many of them.")] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="TOOL", help="onnx, or torch: ModelOpt's quantizers on a .pt, exported.")
    ] = "onnx",
    runtime: Runtime = DEFAULT_RUNTIME,
    version: Annotated[
        str | None,
        typer.Option(
            "--runtime-version",
            "--tensorrt",
            metavar="VERSION",
            help="Of the runtime that the file is for, where it decides the file; else the installed one, or 10.",
        ),
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option(
            "--compute-capability", metavar="X.Y", help="Of the GPU that the file is for, e.g. 8.9; else this one's."
        ),
    ] = None,
    head: Head = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Writes the quantized model of one scheme, without a study.

    Example: tuner materialize yolov10s.onnx --uniform int8 --calibration calib.txt --out int8.onnx
    """
    from itertools import islice

    from objectives.quantization.calibration import calibrate
    from objectives.quantization.coverage import Coverage
    from objectives.quantization.materialize import Materializer
    from objectives.quantization.recovery import recover
    from objectives.quantization.weights import WeightSettings
    from objectives.runtimes.engine_builder import EngineBuilder
    from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
    from objectives.runtimes.runtime import NotFiniteError
    from objectives.tasks.detection.data.calibration_set import load_calibration
    from objectives.tasks.detection.data.preprocessed import PreprocessedImages
    from objectives.tasks.detection.detector import recognise
    from objectives.tasks.detection.plausibility import check_model
    from search_spaces.allocation import Allocation
    from search_spaces.errors import nearest
    from search_spaces.formats import FORMATS, UNQUANTIZED, Granularity, get_format
    from search_spaces.model_graph import ModelGraph
    from tuner.prepare.torch_scheme import difference, materialize_by_torch
    from tuner.study.model_file import onnx_file
    from tuner.terminal.progress import bar

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
    settings = WeightSettings(weights, Granularity(granularity))
    target = open_runtime(parse_settings({"name": RUNTIMES.check(runtime)}))
    dialect = target.dialect(version, capability)
    size = parse_size(image_size)
    graph = ModelGraph(onnx_file(model, head=head, image_size=size, runtime=target), image_size=size)
    target.check_operators(graph)
    if graph.note:
        say(graph.note)
    coverage = Coverage.of(graph)
    contract = recognise(graph, head=head, image_size=size, classes=parse_classes(classes))
    if contract.note:
        say(f"note: {model}: {contract.note}")
    if scheme is None:
        assert uniform is not None
        fmt = get_format(uniform)
        lacking = {layer.name: why for layer in graph.quantizable if (why := layer.lacks(fmt))}
        fitting = [layer.name for layer in graph.quantizable if layer.name not in lacking]
        allocation = Allocation.uniform(fitting, uniform)
        for name, why in lacking.items():
            say(f"{name} stays {UNQUANTIZED}: {why.partition(';')[0]}")
    else:
        allocation = Allocation.from_text(_read(scheme))
    chosen = load_calibration(calibration, images)
    for note in chosen.notes:
        say(f"note: {note}")
    records = chosen.images
    with scratch() as folder:
        with bar("preprocessing images", len(records)) as done:
            pixels = PreprocessedImages.build(records, contract.preprocessing, Path(folder), done)
        check_model(graph, contract, pixels)
        with bar("calibration", len(pixels)) as done:
            table = calibrate(graph, pixels.singles(), method, done)
        layers = {layer.name: layer for layer in graph.quantizable}
        pairs = [(layers[name], FORMATS[fmt]) for name, fmt in allocation.items if name in layers and fmt in FORMATS]
        whole = [layer for layer, fmt in pairs if fmt.quantizes_weight and not settings.blocks(layer, fmt)]
        if settings.granularity is Granularity.BLOCK and whole:
            say(
                f"--granularity block: {len(whole)} of {len(pairs)} layers keep scales per channel, for their input "
                f"channels are no multiple of {settings.block_size} or their kernel sums over all of them: "
                f"{', '.join(layer.name for layer in whole[:3])}{' ...' if len(whole) > 3 else ''}"
            )
        wanted = [pair for pair in pairs if settings.recovers(*pair)]
        recovered = {}
        if wanted:
            with bar("quantizing weights", len(wanted)) as done:
                recovered = recover(graph, lambda: islice(pixels.singles(), _WEIGHT_IMAGES), wanted, settings, done)
        started = time.perf_counter()
        artifact = Materializer(graph, table, dialect, settings, recovered).materialize(allocation)
        seconds = time.perf_counter() - started
        try:
            builds = isinstance(target, EngineBuilder)
            with step(model, "checking its scheme", target.settings.limit_s if builds else STEP_SECONDS):
                artifact.check()
                left = target.try_out(artifact.data, next(iter(pixels.singles()))) if by == "onnx" else ""
        except NotFiniteError:
            if not table.infinite(graph.outputs):
                raise
            left = "the unquantized model's own outputs are infinite on the calibration images"
        if left:
            say(f"checked, but not run: {left}")
        for line in artifact.precision.lines():
            say(line)
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
        say(f"warning: {coverage.warning}")
    figures = {
        "out": str(out),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "average_weight_bits": artifact.size.average_weight_bits,
        "weight_bytes": artifact.size.weight_bytes,
        "quantized_layers": sum(FORMATS[fmt].quantizes_weight for _, fmt in allocation.items),
        "layers": coverage.layers,
        "seconds": seconds,
        **compared,
    }
    if as_json:
        show({**figures, "fp32": artifact.precision.to_json()})
        return
    for name, value in figures.items():
        print(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")


def sensitivity(
    study: Study,
    method: Annotated[str | None, typer.Option("--method", help="onnx, modelopt, inc or file.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to; default runs/NAME-sensitivity.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the study.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures how much each layer and format hurts; writes layer-sensitivity-report.{md,json,csv}.

    A second call goes on where the first one ended.

    Example: tuner sensitivity studies/demo.yaml
    """
    changes = [*(override or ()), *([f"sensitivity.method={method}"] if method else [])]
    from tuner.prepare.sensitivity import ensure_sensitivity
    from tuner.terminal.progress import bar

    with _opened(study, changes, folder, "sensitivity") as (inputs, run):
        table = ensure_sensitivity(inputs, run, bar)
    path = run.path / "layer-sensitivity-report.md"
    if as_json:
        ranking = [vars(entry) for entry in table.ranking()]
        show({"report": str(path), "method": table.method, "metric": table.metric, "entries": ranking})
    else:
        say(f"sensitivity: {path}")


def compare(
    study: Study,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="M", help="onnx, modelopt-gradient, modelopt-kl or inc; at least two."),
    ] = None,
    fmt: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Of the measured drops; else the fewest bits.")
    ] = None,
    layers: Annotated[int, typer.Option("--layers", min=3, help="Layers to measure.")] = 20,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to; default runs/NAME-compare.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the study.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sensitivity methods side by side, and each against the measured mAP drop of single layers.

    Writes comparison.{md,json,html}; a second call goes on where the first one ended.

    Example: tuner compare studies/demo.yaml --method onnx --method modelopt-gradient --layers 20
    """
    from tuner.compare.sensitivity_methods import compare_methods
    from tuner.terminal.progress import bar

    with _opened(study, override or (), folder, "compare") as (inputs, run):
        found = compare_methods(inputs, run, method or ["onnx", "modelopt-gradient"], fmt, layers, bar)
        path = run.path / "comparison.md"
    if as_json:
        show({"report": str(path), **found.to_json()})
    else:
        print(found.to_markdown())
        say(f"comparison: {path}")


@contextmanager
def _opened(
    study: Path, changes: Sequence[str], folder: Path | None, suffix: str
) -> Iterator[tuple[Inputs, RunFolder]]:
    """A study and a folder of its own, held, which is refused where it belongs to another identity."""
    from tuner.study.identity import check_identity, identity
    from tuner.study.inputs import read_inputs
    from tuner.study.run_entries import check_entries
    from tuner.study.run_folder import RunFolder, read_json
    from tuner.study.study_file import read_study

    inputs = read_inputs(read_study(study, changes))
    run = RunFolder(folder or Path("runs") / f"{inputs.config.name}-{suffix}")
    now = identity(inputs.config, digests=inputs.digests)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {str(run.path)!r}: cannot be written ({error.strerror})") from None
    check_entries(run.path)
    with run.lock():
        if run.manifest.is_file():
            check_identity(run, read_json(run.manifest, _Prepared).identity, now)
        elif any(entry.name != ".lock" for entry in run.path.iterdir()):
            raise InputError(f"--out {str(run.path)!r}: holds something else; choose another folder")
        else:
            write_durably(run.manifest, json.dumps({"identity": now}))
        yield inputs, run


def _read(path: Path) -> str:
    remedy = "--scheme takes a scheme.json"
    try:
        return read_sized(path, MAX_TEXT_BYTES, remedy).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {remedy}") from None
