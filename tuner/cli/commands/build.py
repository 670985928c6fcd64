"""The command that builds engines here for GPUs elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError
from tuner.cli.options import MODEL, ImageSize, Json, parse_size
from tuner.terminal.console import say, show, show_table

_MIB = 2**20


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(rich_help_panel=MODEL)(build)


def build(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="Run folder, or an ONNX file.", show_default=False)
    ],
    *,
    capabilities: Annotated[
        str,
        typer.Option("--compute-capability", metavar="X.Y,...", help="Of the GPUs, e.g. 8.9,12.0.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.", show_default=False)],
    trials: Annotated[
        list[int] | None, typer.Option("--trial", metavar="N", help="Trials of the run; default its front.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", metavar="NAME", help="Which builder; default the one that needs no GPU.")
    ] = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Builds engines for GPUs that this machine need not have.

    Of a run's front, of single trials, or of a model file.

    Example: tuner build runs/demo --compute-capability 8.9,12.0 --out engines
    """
    from objectives.runtimes.registry import RUNTIMES, ahead_of_time_builder
    from search_spaces.model_graph import ModelGraph
    from tuner.results.build import SchemeSource, build_engines, schemes_of
    from tuner.results.loaded import load_run
    from tuner.study.study_file import runtime_settings
    from tuner.terminal.progress import bar

    name = RUNTIMES.check(runtime) if runtime is not None else ahead_of_time_builder()
    if not getattr(RUNTIMES.get(name), "ahead_of_time", False):
        raise InputError(f"--runtime {name}: builds no engines for other machines; choose {ahead_of_time_builder()}")
    wanted = [text.strip() for text in capabilities.split(",") if text.strip()]
    if not wanted:
        raise InputError(f"--compute-capability {capabilities!r}: names none; give e.g. 8.9,12.0")
    targets = [runtime_settings(name, [f"compute_capability={text}"]) for text in dict.fromkeys(wanted)]
    if source.is_dir():
        schemes = schemes_of(load_run(source), trials or ())
    elif trials:
        raise InputError(f"--trial {trials[0]}: {str(source)!r} is no run folder; leave it out for a model file")
    else:
        graph = ModelGraph(source, allow_quantized=True, image_size=parse_size(image_size))
        schemes = [(source.stem, SchemeSource(graph))]
    found = build_engines(schemes, targets, out, bar)
    if as_json:
        show({"out": str(out), "engines": [asdict(built) for built in found]})
        return
    rows = [
        [
            built.model,
            built.compute_capability,
            f"{built.engine_bytes / _MIB:.2f}" if built.engine else "-",
            f"{built.model_bytes / _MIB:.2f}" if built.model_bytes else "-",
            f"{built.seconds:.1f}" if built.engine else "-",
            built.engine or built.error,
        ]
        for built in found
    ]
    show_table(["model", "GPU", "engine MiB", "ONNX MiB", "s", "file"], rows, left={"model", "GPU", "file"})
    refused = sum(not built.engine for built in found)
    say(f"{len(found) - refused} engines are in {out}" + (f"; {refused} could not be built" if refused else ""))
