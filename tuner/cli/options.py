"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from objectives.runtimes.names import RUNNING
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS

if TYPE_CHECKING:
    from objectives.runtimes.runtime import Runtime as RuntimeObject
    from tuner.workers.ray_cluster import RayCluster


def runtime_names() -> list[str]:
    """Completes ``--runtime``."""
    from objectives.runtimes.registry import RUNTIMES

    return list(RUNTIMES.names())


def format_names() -> list[str]:
    """Completes ``--uniform``."""
    return list(FORMATS)


_RUNTIMES = f"Where it runs: {', '.join(RUNNING)}."

#: Groups of commands, as `tuner --help` shows them.
STUDY, MODEL, COMPARE, TOOLS = "Study", "Model", "Compare", "Tools"

ATTACHED = "--attached"  # of a worker: whoever started it holds its stdin, and learns of its death
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="ONNX detector, or Ultralytics checkpoint (.pt).", show_default=False)
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, e.g. runs/demo.", show_default=False)]
Study = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Study file.", show_default=False)]
Target = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY.yaml|MODEL",
        help="Study file, ONNX detector, or checkpoint (.pt).",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DATA.yaml", help="Images and labels as Ultralytics and Roboflow write them."),
]
Images = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Evaluation images, without a data yaml.")]
Annotations = Annotated[Path | None, typer.Option("--annotations", metavar="FILE", help="Their COCO json.")]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="LIST", help="Image list, folder, or data yaml; else its train split."),
]
OtherRuntime = Annotated[
    str | None, typer.Option("--runtime", metavar="NAME", help=_RUNTIMES, autocompletion=runtime_names)
]
MaxDrop = Annotated[
    float | None,
    typer.Option("--max-drop", metavar="P", min=0, max=100, help="Search only what loses at most P points of mAP."),
]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the study, e.g. search.seed=1."),
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all, in place of the study's.")]
Workers = Annotated[int, typer.Option("--workers", metavar="N", min=1, max=64, help="Processes that evaluate trials.")]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Place workers on a Ray cluster, HOST:PORT; auto: this host's."),
]
RayShare = Annotated[
    float, typer.Option("--ray-share", metavar="X", help="GPUs of Ray's per worker; CPUs where the runtime uses none.")
]
Runtime = Annotated[str, typer.Option("--runtime", metavar="NAME", help=_RUNTIMES, autocompletion=runtime_names)]
Builder = Annotated[
    list[str] | None,
    typer.Option("--builder", metavar="KEY=VALUE", help="A runtime key of the study file, e.g. optimization_level=1."),
]
Uniform = Annotated[
    str | None,
    typer.Option(
        "--uniform", metavar="FORMAT", help=f"One for all: {', '.join(FORMATS)}.", autocompletion=format_names
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of one inference.")]
Head = Annotated[
    str | None, typer.Option("--head", help="How outputs are read, as model.head; else seen in the graph.")
]
ImageSize = Annotated[
    str | None, typer.Option("--image-size", help="Input size, N or HxW, where the model leaves it open.")
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Class names in the model's order: A,B,..., or a file with a name a line, or a data yaml.",
    ),
]
Split = Annotated[str, typer.Option("--split", metavar="train|val|test", help="Of a data yaml.")]


def parse_classes(text: str | None) -> tuple[str, ...] | None:
    """Reads ``--classes``: names with commas between them, or a file of names.

    Raises:
        InputError: It names nothing, or the file is neither a list of names nor a data yaml.
    """
    from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES, read_data_yaml
    from search_spaces.reading import is_file, read_lines

    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() in YAML_SUFFIXES:
        names = [category.name for category in read_data_yaml(path).categories]
    elif is_file(path):
        names = read_lines(path, "give a file with a class name on each line")
    else:
        names = text.split(",")
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise InputError(f"--classes {text!r}: names no class; give names with commas between them, or a file of them")
    return found


def parse_runtime(name: str, pairs: list[str] | None = None) -> RuntimeObject:
    """Opens ``--runtime`` with the keys of ``--builder KEY=VALUE``; raises as `usable_runtime` does."""
    from tuner.api.detectors import usable_runtime

    return usable_runtime(name, pairs or ())


def ray_cluster(address: str | None, share: float) -> RayCluster | None:
    """The cluster that ``--ray`` names; None without it."""
    from tuner.workers.ray_cluster import RayCluster

    return RayCluster(address, share) if address is not None else None


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
