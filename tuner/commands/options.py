"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search_spaces.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX detector.", show_default=False)]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, e.g. runs/demo.", show_default=False)]
Study = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Study file.", show_default=False)]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all, in place of the study's.")]
Runtime = Annotated[str, typer.Option("--runtime", help="onnxruntime-cpu or onnxruntime-cuda.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of one inference.")]
Head = Annotated[str | None, typer.Option("--head", help="Head layout: end_to_end, scores or raw; else read.")]
ImageSize = Annotated[
    str | None, typer.Option("--image-size", help="Input size, N or HxW, where the model leaves it open.")
]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Reads ``640`` or ``480x640``.

    Raises:
        InputError: It is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--image-size {text!r}: must be N or HxW, e.g. 640 or 480x640")
    return int(parts[0]), int(parts[-1])
