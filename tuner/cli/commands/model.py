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
from search_spaces.limits import renew, scratch
from tuner.cli.options import (
    Builder,
    Classes,
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
from tuner.terminal.console import say, show, show_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from objectives.tasks.detection.detector import Detector
    from search_spaces.model_graph import ModelGraph


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(layers)
    app.command("eval")(evaluate)
    app.command()(detect)
    app.command()(bench)


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
        print(f"not quantizable: {layer.name} ({layer.op}): {layer.reason}")


def evaluate(
    model: Model,
    *,
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Image folder, or a data yaml.")],
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
    """Scores a model, quantized or not: COCO mAP by pycocotools, or its agreement with another model.

    Example: tuner eval yolov10s.onnx --images coco/val --annotations coco/instances_val.json
    """
    from objectives.agreement import AGREEMENT
    from objectives.runtimes.opening import open_file
    from objectives.tasks.detection.data.data_yaml import YAML_SUFFIXES
    from objectives.tasks.detection.data.dataset import has_labels, load_dataset, load_unlabelled
    from objectives.tasks.detection.data.preprocessed import PreprocessedImages
    from objectives.tasks.detection.metrics.low_score import NOTHING, low_score_reason, strays
    from objectives.tasks.detection.metrics.registry import DEFAULT_METRICS
    from objectives.tasks.detection.metrics.scoring import figures, needs, score
    from objectives.tasks.detection.plausibility import check_reading, other_pixels, unsure
    from tuner.prepare.predicting import detect as detect_on
    from tuner.study.model_file import onnx_file
    from tuner.terminal.progress import bar

    labelled = annotations is not None or images.suffix.lower() in YAML_SUFFIXES or has_labels(images)
    alone = reference is not None and not labelled
    also = (AGREEMENT.metric,) if reference is not None else ()
    wanted = metric or (*(() if alone else DEFAULT_METRICS), *also)
    figures(wanted)  # before anything is run
    target = parse_runtime(runtime, builder)
    file = onnx_file(model, head=head, image_size=parse_size(image_size), runtime=target)
    graph, contract = _detector(file, head, image_size, classes)
    target.check_operators(graph)
    contract = contract.giving(needs(wanted), f"--metric {', '.join(wanted)}")
    if contract.note:
        say(f"note: {model}: {contract.note}")
    labels = load_unlabelled(images) if alone else load_dataset(images, annotations, split, contract.details)
    dataset = labels.subset(limit)
    dataset = dataset.matched(contract.classes, contract.class_count)
    for note in dataset.notes:
        say(f"note: {note}")
    with scratch() as folder:
        with bar("preprocessing images", len(dataset)) as done:
            pixels = PreprocessedImages.build(dataset.images, contract.preprocessing, Path(folder), done)
        with bar("evaluation", len(dataset)) as done, open_file(target, file, contract.image_size) as runner:
            check_reading(graph, contract, runner, pixels, target.settings.batch)
            predictions = detect_on(target, runner, pixels, contract, done)
            doubt = other_pixels(contract, runner, pixels, target.settings.batch) if unsure(predictions) else ""
        expected = None
        if reference is not None:
            other = onnx_file(reference, head=head, image_size=parse_size(image_size), runtime=target)
            how = _detector(other, head, image_size, classes)[1]
            with bar("preprocessing for the reference", len(dataset)) as done:
                pixels = PreprocessedImages.build(dataset.images, how.preprocessing, Path(folder), done)
            with (
                bar("evaluation of the reference", len(dataset)) as done,
                open_file(target, other, how.image_size) as runner,
            ):
                expected = detect_on(target, runner, pixels, how, done)
        found = score(dataset, predictions, wanted, expected).to_json()
    if stray := strays(predictions):
        say(f"warning: {stray}")
    if doubt:
        say(f"warning: {doubt}")
    if found.get("map_50_95", 1.0) < NOTHING:
        say(f"warning: mAP50-95 is {max(found['map_50_95'], 0.0):.4f}: {low_score_reason(dataset, predictions)}")
    if as_json:
        show({"model": str(model), **found})
        return
    for name, value in found.items():
        print(f"{name:10} {value:.4f}" if isinstance(value, float) else f"{name:10} {value}")


def detect(
    model: Model,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.", show_default=False)],
    *,
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
    """Draws a model's detections on pictures, side by side with a reference model's.

    Example: tuner detect int8.onnx street.jpg --out drawn --reference yolov10s.onnx
    """
    from objectives.runtimes.opening import open_file
    from objectives.tasks.detection.data.image_files import read_image
    from objectives.tasks.detection.data.letterbox import letterbox
    from objectives.tasks.detection.drawing import draw, side_by_side, write_picture
    from objectives.tasks.detection.thresholds import Thresholds
    from search_spaces.reading import is_file
    from tuner.study.model_file import onnx_file

    target = parse_runtime(runtime, [*(builder or []), f"threads={os.cpu_count() or 1}", "batch=1"])
    given = [path for path in (reference, model) if path is not None]
    models = [onnx_file(path, head=head, image_size=parse_size(image_size), runtime=target) for path in given]
    contracts = [_detector(path, head, image_size, classes)[1] for path in models]
    pictures = []
    for path in images:
        read = read_image(path) if is_file(path) else None
        if read is None:
            raise InputError(f"image {str(path)!r}: missing or not a picture that can be read")
        pictures.append((path, read))
    names = [path.name for path in images]
    if len(set(names)) < len(names):
        raise InputError("images: two have the same file name; their drawings would overwrite each other")
    existing = [name for name in names if (out / name).exists()]
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
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Times a model, and pairs it with a reference model.

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
    image = np.random.default_rng(0).random((batch, 3, *_input_size(files[0], size)), dtype=np.float32)
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


def _detector(
    model: Path, head: str | None, image_size: str | None, classes: str | None
) -> tuple[ModelGraph, Detector]:
    from objectives.tasks.detection.detector import recognise
    from search_spaces.model_graph import ModelGraph

    size = parse_size(image_size)
    graph = ModelGraph(model, allow_quantized=True, image_size=size)
    if graph.narrow:
        say(f"{model}: is in half precision, and runs so")
    return graph, recognise(graph, head=head, image_size=size, classes=parse_classes(classes))


def _input_size(model: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """Image size of a model: what it fixes, else what was given."""
    from search_spaces.model_graph import ModelGraph

    _, _, height, width = ModelGraph(model, allow_quantized=True, image_size=size).input_shape
    if not height or not width:
        raise InputError(f"{model}: leaves its image size open; give --image-size, e.g. --image-size 640")
    return height, width
