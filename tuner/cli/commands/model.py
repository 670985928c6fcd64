"""Commands on one model: layers, eval, detect, bench."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from objectives.runtimes import DEFAULT_RUNTIME
from search_spaces.errors import InputError
from search_spaces.limits import renew
from tuner.cli.options import (
    MODEL,
    Builder,
    Classes,
    Data,
    Head,
    ImageSize,
    Json,
    Model,
    Runtime,
    Split,
    Threads,
    parse_classes,
    parse_runtime,
    parse_size,
)
from tuner.terminal.console import say, show, show_table, tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(rich_help_panel=MODEL)(layers)
    app.command("eval", rich_help_panel=MODEL)(evaluate)
    app.command(rich_help_panel=MODEL)(detect)
    app.command(rich_help_panel=MODEL)(bench)


def layers(model: Model, image_size: ImageSize = None, as_json: Json = False) -> None:
    """Lists the quantizable layers, and why the others are not.

    Example: tuner layers yolov10s.onnx
    """
    from search_spaces.model_graph import ModelGraph
    from tuner.study.model_file import onnx_file

    size = parse_size(image_size)
    graph = ModelGraph(onnx_file(model, image_size=size), image_size=size)
    if graph.note:
        say(graph.note)
    if as_json:
        show(
            {
                "model": str(model),
                "digest": graph.digest,
                "layers": [layer.to_json() for layer in graph.layers],
            }
        )
        return
    head = ["layer", "op", "shape", "parameters", "MACs", "module"]
    rows = [
        [x.name, x.op, "x".join(map(str, x.weight_shape)), f"{x.parameters:,}", f"{x.macs:,}", x.module]
        for x in graph.quantizable
    ]
    show_table(head, rows, left={"layer", "op", "shape", "module"})
    others = [layer for layer in graph.layers if not layer.quantizable]
    print(f"\n{len(rows)} quantizable layers, {sum(x.parameters for x in graph.quantizable):,} parameters")
    for layer in others:
        tell(f"not quantizable: {layer.name} ({layer.op}): {layer.reason}")


def evaluate(
    model: Model,
    *,
    data: Data = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Image folder, or a data yaml.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", metavar="FILE", help="COCO json; a data yaml brings its own.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="Tells the agreement with it; no labels needed.")
    ] = None,
    split: Split = "val",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only N images, always the same.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="Metric, as in data.metrics; else coco_box.")
    ] = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    builder: Builder = None,
    head: Head = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Scores a model: COCO mAP, or agreement with another model.

    Example: tuner eval yolov10s.onnx --data data.yaml

    Example: tuner eval yolov10s.onnx --images coco/val --annotations coco/instances_val.json
    """
    from tuner.api.evaluating import evaluate as evaluate_model
    from tuner.terminal.progress import bar

    found = evaluate_model(
        model,
        data=data,
        images=images,
        annotations=annotations,
        split=split,
        reference=reference,
        limit=limit,
        metrics=metric or (),
        runtime=runtime,
        runtime_keys=builder or (),
        head=head,
        classes=parse_classes(classes),
        image_size=parse_size(image_size),
        tell=say,
        steps=bar,
    ).to_json()
    if as_json:
        show({"model": str(model), **found})
        return
    for name, value in found.items():
        print(f"{name:10} {value:.4f}" if isinstance(value, float) else f"{name:10} {value}")


def detect(
    model: Model,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Pictures.", show_default=False)
    ] = None,
    *,
    data: Data = None,
    split: Split = "val",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Of a data yaml, the first N images.")] = 8,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the drawn pictures.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="Draws its detections on the left.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", min=0.0, max=1.0, help="Lowest score drawn.")] = 0.25,
    runtime: Runtime = DEFAULT_RUNTIME,
    builder: Builder = None,
    head: Head = None,
    classes: Classes = None,
    image_size: ImageSize = None,
) -> None:
    """Draws detections on pictures, beside a reference model's.

    Example: tuner detect int8.onnx street.jpg --out drawn --reference yolov10s.onnx
    """
    from objectives.runtimes.opening import open_file
    from objectives.tasks.detection.data.data_yaml import data_yaml_in, read_data_yaml
    from objectives.tasks.detection.data.image_files import read_image
    from objectives.tasks.detection.data.letterbox import letterbox
    from objectives.tasks.detection.drawing import draw, side_by_side, write_picture
    from objectives.tasks.detection.thresholds import Thresholds
    from search_spaces.reading import is_file
    from tuner.api.detectors import open_detector
    from tuner.study.model_file import onnx_file

    target = parse_runtime(runtime, [*(builder or []), f"threads={os.cpu_count() or 1}", "batch=1"])
    given = [path for path in (reference, model) if path is not None]
    models = [onnx_file(path, head=head, image_size=parse_size(image_size), runtime=target) for path in given]
    size, names = parse_size(image_size), parse_classes(classes)
    contracts = [open_detector(path, head=head, image_size=size, classes=names, tell=say)[1] for path in models]
    if (data is None) is not bool(images):
        raise InputError("detect: give pictures, or --data DATA.yaml for the first --limit images of its --split")
    chosen = read_data_yaml(data_yaml_in(data)).images(split)[:limit] if data is not None else tuple(images or ())
    pictures = []
    for path in chosen:
        read = read_image(path) if is_file(path) else None
        if read is None:
            raise InputError(f"image {str(path)!r}: missing or not a picture that can be read")
        pictures.append((path, read))
    files = [path.name for path in chosen]
    if len(set(files)) < len(files):
        raise InputError("images: two have the same file name; their drawings would overwrite each other")
    existing = [name for name in files if (out / name).exists()]
    if existing:
        raise InputError(f"--out {str(out)!r}: already holds {existing[0]!r}; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {str(out)!r}: cannot be written ({error.strerror})") from None
    drawn: dict[Path, list[NDArray[np.uint8]]] = {}
    for path, contract in zip(models, contracts, strict=True):
        with open_file(target, path, contract.image_size) as runner:
            for name, picture in pictures:
                pixels, place = letterbox(picture, contract.preprocessing)
                outputs = runner.infer(contract.preprocessing.feed(pixels[None]))
                found = contract.decode(outputs, Thresholds(confidence=max(confidence, 1e-3)))[0]
                renew()
                found[:, :4] = place.to_image(found[:, :4])
                drawn.setdefault(name, []).append(draw(picture, found, contract.classes, confidence))
    for name, views in drawn.items():
        picture = views[0] if len(views) == 1 else side_by_side(views[0], views[1], (models[0].stem, models[1].stem))
        if not write_picture(out / name.name, picture):
            raise InputError(f"--out {str(out / name.name)!r}: cannot be written; check its format and the folder")
        say(f"{out / name.name}")


def bench(
    model: Model,
    *,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="MODEL", help="Timed alternately with MODEL.")
    ] = None,
    runtime: Runtime = DEFAULT_RUNTIME,
    builder: Builder = None,
    threads: Threads = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images of one inference.")] = 1,
    data: Data = None,
    split: Split = "val",
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Times a model, and pairs it with a reference model.

    It reads noise, or the first images of --data, which a model that selects boxes may take longer for.

    Example: tuner bench int8.onnx --reference yolov10s.onnx --threads 1
    """
    import numpy as np

    from objectives.latency import measure
    from objectives.runtimes.opening import open_file
    from objectives.scores import Failure
    from tuner.prepare.evaluators import timing_protocol
    from tuner.study.config import TimingSection
    from tuner.study.model_file import onnx_file

    target = parse_runtime(runtime, [*(builder or []), f"batch={batch}", f"threads={threads}"])
    size = parse_size(image_size)
    given = [path for path in (model, reference) if path is not None]
    files = [onnx_file(path, image_size=size, runtime=target) for path in given]
    if data is None:
        image = np.random.default_rng(0).random((batch, 3, *_input_size(files[0], size)), dtype=np.float32)
    else:
        image = _first_images(files[0], data, split, batch, size)
    protocol = timing_protocol(TimingSection(), target)
    if reference is not None and _input_size(files[1], size) != image.shape[2:]:
        raise InputError(f"--reference {str(reference)!r}: takes another image size than {model}")
    with ExitStack() as stack:
        opened = [stack.enter_context(open_file(target, path, size)) for path in files]
        with target.hold(alone=True):
            found = measure(opened[0], opened[1] if reference else None, image, protocol, observe=target.observe)
    if isinstance(found, Failure):
        raise InputError(f"{model}: {found.kind}: {found.message}; stop other work on this machine and try again")
    if found.noisy:
        say(f"warning: the machine is noisy: the ratio varies by {found.cov:.1%}; free it and try again")
    figures = asdict(found)
    if reference is None:
        for name in ("ratio", "ratio_low", "ratio_high", "reference_p50_ms"):
            figures[name] = None
    if as_json:
        show({"model": str(model), "runtime": runtime, "threads": threads, "batch": batch, **figures})
        return
    for name, value in figures.items():
        print(f"{name:17} {value:.4f}" if isinstance(value, float) else f"{name:17} {value}")


def _first_images(model: Path, data: Path, split: str, batch: int, size: tuple[int, int] | None) -> NDArray[np.float32]:
    """One batch of a data yaml's images as the model reads them, shape ``(batch, 3, H, W)``."""
    import numpy as np

    from objectives.tasks.detection.data.data_yaml import data_yaml_in, read_data_yaml
    from objectives.tasks.detection.data.image_files import read_image
    from objectives.tasks.detection.data.letterbox import letterbox
    from tuner.api.detectors import open_detector

    preprocessing = open_detector(model, image_size=size)[1].preprocessing
    files = read_data_yaml(data_yaml_in(data)).images(split)
    pictures = []
    for path in (files * batch)[:batch]:
        picture = read_image(path)
        if picture is None:
            raise InputError(f"image {str(path)!r}: not a picture that can be read")
        pictures.append(letterbox(picture, preprocessing)[0])
    return preprocessing.feed(np.stack(pictures))


def _input_size(model: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """Image size of a model: what it fixes, else what was given."""
    from search_spaces.model_graph import ModelGraph

    _, _, height, width = ModelGraph(model, allow_quantized=True, image_size=size).input_shape
    if not height or not width:
        raise InputError(f"{model}: leaves its image size open; give --image-size, e.g. --image-size 640")
    return height, width
