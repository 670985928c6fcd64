"""Commands below a study: materialize one scheme, measure the sensitivity, compare its methods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from objectives.runtimes import DEFAULT_RUNTIME
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.reading import MAX_TEXT_BYTES, read_sized
from tuner.cli.options import (
    COMPARE,
    MODEL,
    Annotations,
    Calibration,
    Classes,
    Data,
    Head,
    Images,
    ImageSize,
    Json,
    Model,
    Override,
    Runtime,
    Study,
    Target,
    Uniform,
    parse_classes,
    parse_size,
)
from tuner.terminal.console import say, show, tell

if TYPE_CHECKING:
    from tuner.study.config import StudyConfig
    from tuner.study.inputs import Inputs
    from tuner.study.run_folder import RunFolder


@dataclass(frozen=True)
class _Prepared:
    """Manifest of a folder that holds measurements below a study."""

    identity: dict[str, Any]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=MODEL)(materialize)
    app.command(rich_help_panel=MODEL)(sensitivity)
    app.command(rich_help_panel=COMPARE)(compare)


def materialize(
    model: Model,
    *,
    data: Data = None,
    calibration: Calibration = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="ONNX file to write.")],
    uniform: Uniform = None,
    scheme: Annotated[Path | None, typer.Option("--scheme", metavar="FILE", help="A scheme.json.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="auto|rtn|bias|gptq|corrected",
            help="How weights are quantized; by the runtime if not.",
        ),
    ] = None,
    granularity: Annotated[
        str, typer.Option("--granularity", metavar="auto|per_tensor|per_channel|block", help="Of the weights' scales.")
    ] = "auto",
    method: Annotated[
        str, typer.Option("--method", metavar="max|percentile|entropy|mse", help="How ranges are found.")
    ] = "percentile",
    images: Annotated[int | None, typer.Option("--calibration-images", min=1, help="So many of them.")] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="onnx|torch", help="torch: ModelOpt's quantizers on a .pt, exported.")
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

    Example: tuner materialize yolov10s.onnx --uniform int8 --data data.yaml --out int8.onnx
    """
    from search_spaces.allocation import Allocation
    from tuner.api.materializing import materialize as materialize_model
    from tuner.terminal.progress import bar

    found = materialize_model(
        model,
        out,
        uniform=uniform,
        scheme=None if scheme is None else Allocation.from_text(_read(scheme)),
        data=data,
        calibration=calibration,
        calibration_images=images,
        method=method,
        weights=weights,
        granularity=granularity,
        by=by,
        runtime=runtime,
        runtime_version=version,
        compute_capability=capability,
        head=head,
        classes=parse_classes(classes),
        image_size=parse_size(image_size),
        tell=say,
        steps=bar,
    )
    if as_json:
        show({**found.figures(), "fp32": found.float32})
        return
    for name, value in found.figures().items():
        print(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")


def sensitivity(
    study: Target,
    *,
    data: Data = None,
    images: Images = None,
    annotations: Annotations = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="onnx|modelopt|inc|file", help="Who measures it.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to; default runs/NAME-sensitivity.")
    ] = None,
    override: Override = None,
    as_json: Json = False,
) -> None:
    """Measures how much each layer and format hurts.

    Writes layer-sensitivity-report.{md,json,csv}; a second call goes on where the first one ended.

    Example: tuner sensitivity studies/demo.yaml

    Example: tuner sensitivity best.pt --data data.yaml
    """
    from tuner.prepare.sensitivity import ensure_sensitivity
    from tuner.study.composed import Given, open_study
    from tuner.terminal.progress import bar

    changes = [*(override or ()), *([f"sensitivity.method={method}"] if method else [])]
    config, notes = open_study(study, Given(data, images, annotations), changes)
    for note in notes:
        say(f"note: {note}")
    with _opened(config, folder, "sensitivity") as (inputs, run):
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
    override: Override = None,
    as_json: Json = False,
) -> None:
    """Compares sensitivity methods with measured losses of layers.

    Writes comparison.{md,json,html}; a second call goes on where the first one ended.

    Example: tuner compare studies/demo.yaml --method onnx --method modelopt-gradient --layers 20
    """
    from tuner.compare.sensitivity_methods import compare_methods
    from tuner.study.study_file import read_study
    from tuner.terminal.progress import bar

    with _opened(read_study(study, override or ()), folder, "compare") as (inputs, run):
        found = compare_methods(inputs, run, method or ["onnx", "modelopt-gradient"], fmt, layers, bar)
        path = run.path / "comparison.md"
    if as_json:
        show({"report": str(path), **found.to_json()})
    else:
        tell(found.to_markdown())
        say(f"comparison: {path}")


@contextmanager
def _opened(config: StudyConfig, folder: Path | None, suffix: str) -> Iterator[tuple[Inputs, RunFolder]]:
    """A study and a folder of its own, held, which is refused where it belongs to another identity."""
    from tuner.study.identity import check_identity, identity
    from tuner.study.inputs import read_inputs
    from tuner.study.run_entries import check_entries
    from tuner.study.run_folder import RunFolder, read_json

    inputs = read_inputs(config)
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
