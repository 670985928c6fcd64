"""Commands on a PyTorch checkpoint: convert, match."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from objectives.runtimes import DEFAULT_RUNTIME
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from tuner.cli.options import MODEL, ImageSize, Json, Runtime, parse_size
from tuner.terminal.console import say, show

if TYPE_CHECKING:
    from objectives.torch_models.node_map import NodeMap

Checkpoint = Annotated[Path, typer.Argument(metavar="MODEL.pt", help="Ultralytics checkpoint.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=MODEL)(convert)
    app.command("match", rich_help_panel=MODEL)(compare_weights)


def convert(
    checkpoint: Checkpoint,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="ONNX file to write.")],
    head: Annotated[
        str | None, typer.Option("--head", help="Head to export, as model.head; else a one-to-one head if it has one.")
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="By default what the runtime reads best.")] = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Exports a checkpoint to ONNX and verifies every weight.

    FILE.map.json keeps the map from modules to layers.

    Example: tuner convert yolov10s.pt --out yolov10s.onnx
    """
    from objectives.runtimes.registry import RUNTIMES, open_runtime, parse_settings
    from objectives.torch_models.checkpoint import load_checkpoint
    from objectives.torch_models.export import ExportSettings, export

    if out.exists():
        raise InputError(f"--out {str(out)!r}: exists; choose another file")
    if not out.parent.is_dir():
        raise InputError(f"--out {str(out)!r}: its folder does not exist; make it first")
    target = open_runtime(parse_settings({"name": RUNTIMES.check(runtime)}))
    settings = ExportSettings(head, opset or target.dialect().export_opset, parse_size(image_size))
    found = export(load_checkpoint(checkpoint), out, settings)
    notes = out.with_name(f"{out.name}.map.json")
    write_durably(notes, _text(found))
    _tell(found, {"out": str(out), "map": str(notes), "opset": settings.opset}, as_json)
    found.require_complete(str(checkpoint), str(out))


def compare_weights(
    checkpoint: Checkpoint,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX detector.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Tells whether a checkpoint and an ONNX file are one model.

    Weights are compared layer by layer; exits with 2 if they differ.

    Example: tuner match yolov10s.pt yolov10s.onnx
    """
    from objectives.torch_models.checkpoint import load_checkpoint
    from objectives.torch_models.export import map_checkpoint
    from search_spaces.model_graph import ModelGraph

    graph = ModelGraph(model)
    found = map_checkpoint(load_checkpoint(checkpoint), graph)
    _tell(found, {"checkpoint": str(checkpoint), "model": str(model)}, as_json)
    found.require_complete(str(checkpoint), str(model))


def _text(found: NodeMap) -> str:
    import json

    return json.dumps(found.to_json(), indent=1) + "\n"


def _tell(found: NodeMap, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show({**facts, **found.to_json()})
        return
    say(found.summary())
    for layer, reason in found.explained.items():
        say(f"not quantizable: {layer}: {reason}")
    for layer, reason in found.unmatched.items():
        say(f"unmatched: {layer}: {reason}")
    for name in found.unused:
        say(f"not in the graph: {name}")
