"""Runs several sensitivity methods on one study, measures single layers, and compares."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.metrics.coco import Predictions, score
from objectives.tasks.detection.predict import predict
from search_spaces.allocation import Allocation
from search_spaces.comparison import Comparison, MeasuredDrop, Ranking, compare, sample_layers
from search_spaces.errors import InputError, nearest
from search_spaces.sensitivity import SensitivityTable
from tuner.prepare.measuring import worker_count
from tuner.prepare.sensitivity_sources import inc_table, modelopt_tables, quantizing_formats
from tuner.prepare.workbench import Workbench
from tuner.report.methods import comparison_figure
from tuner.study.run_folder import read_json, read_text, write_durably

_Row = tuple[str, str, float, float, float]  # layer, format, drop, disagreement, seconds
METHODS = ("onnx", "modelopt-gradient", "modelopt-kl", "inc")


def compare_methods(workbench: Workbench, methods: Sequence[str], fmt: str | None, layers: int) -> Comparison:
    """Compares sensitivity methods; what the run folder holds already is not measured again.

    Args:
        workbench: Of the study; ``comparison.{md,json,html}`` are written into its run folder.
        methods: Of `METHODS`, at least two.
        fmt: Format of the measured drops; None for the space's with the fewest bits.
        layers: How many layers to measure, at least 3.

    Raises:
        InputError: A method or format is unknown, or fewer than two methods are named.
        RuntimeUnavailable: What a method needs is missing.
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--method {method!r}: is not one of {', '.join(METHODS)}{nearest(method, METHODS)}")
    if len(set(methods)) < 2:
        raise InputError(f"--method: name at least two of {', '.join(METHODS)}")
    formats = quantizing_formats(workbench)
    if fmt in workbench.inputs.dropped:
        wanted = "gains nothing in its objectives; add weight_mib to them"
        raise InputError(f"--format {fmt!r}: was left out of the study's space: it {wanted}")
    if fmt is not None and fmt not in formats:
        raise InputError(f"--format {fmt!r}: is not in the study's space ({', '.join(formats)}){nearest(fmt, formats)}")
    chosen = fmt or min(formats, key=_bits)
    tables = [_rankings(method, _table(workbench, method)) for method in dict.fromkeys(methods)]
    sample = sample_layers(next((r for r in tables[0] if r.format == chosen), tables[0][0]), layers)
    drops = _measure(workbench, sample, chosen)
    images = len(workbench.data.search)
    found = compare(workbench.inputs.graph.digest, images, chosen, tables, drops)
    folder = workbench.run.path
    write_durably(workbench.run.comparison, json.dumps(found.to_json(), indent=1) + "\n")
    write_durably(folder / "comparison.md", found.to_markdown())
    write_durably(folder / "comparison.html", comparison_figure(found).to_html(include_plotlyjs=True))
    return found


def kept_table(workbench: Workbench, method: str) -> Path:
    """Where a method's table is kept, named by the settings that decide it and that are not the run's identity."""
    settings = workbench.inputs.config.sensitivity.model_dump(exclude={"method", "file", "scores", "inc_python"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return workbench.run.path / "methods" / f"{method}-{digest}.json"


def _table(workbench: Workbench, method: str) -> SensitivityTable:
    path = kept_table(workbench, method)
    if path.is_file():
        return SensitivityTable.from_json(read_text(path))
    if method == "onnx":
        table = workbench.onnx_sensitivity()
    elif method == "inc":
        table = inc_table(workbench)
    else:
        table = modelopt_tables(workbench, (method.removeprefix("modelopt-"),))[0]
    path.parent.mkdir(exist_ok=True)
    write_durably(path, table.to_json())
    return table


def _rankings(method: str, table: SensitivityTable) -> list[Ranking]:
    found = []
    for fmt in dict.fromkeys(entry.format for entry in table.entries):
        own = [entry for entry in table.entries if entry.format == fmt]
        scores = {entry.layer: entry.score for entry in own}
        found.append(Ranking(method, fmt, scores, sum(entry.seconds for entry in own)))
    return found


def _measure(workbench: Workbench, layers: Sequence[str], fmt: str) -> list[MeasuredDrop]:
    """Scores one layer at a time in `fmt`, in ONNX Runtime's CPU; each is kept when it is done."""
    path = workbench.run.path / "methods" / "drops.json"
    kept = {row[:2]: row for row in read_json(path, list[_Row])} if path.exists() else {}
    missing = [layer for layer in layers if (layer, fmt) not in kept]
    if missing:
        data = workbench.data
        images = workbench.images(data.search.images)
        reference = _predict(workbench, None, images)
        base = score(data.search, reference).map_50_95
        with workbench.step(f"measuring single layers in {fmt}", len(missing)) as done:
            for count, layer in enumerate(missing, 1):
                started = time.perf_counter()
                found = _predict(workbench, Allocation.of({layer: fmt}), images)
                drop = base - score(data.search, found).map_50_95
                row = (layer, fmt, drop, 1 - agreement(found, reference), time.perf_counter() - started)
                kept[layer, fmt] = row
                write_durably(path, json.dumps(list(kept.values())))
                done(count)
    return [MeasuredDrop(*kept[layer, fmt]) for layer in layers]


def _predict(workbench: Workbench, allocation: Allocation | None, images: PreprocessedImages) -> Predictions:
    model: bytes | Path = workbench.inputs.graph.path
    if allocation is not None:
        model = workbench.float_materializer(workbench.inputs.graph).materialize(allocation).data
    with OnnxRuntimeRunner(model, threads=1) as runner:
        return predict(runner, images, workbench.data.contract, workers=worker_count())


def _bits(name: str) -> tuple[int, int]:
    from search_spaces.formats import get_format

    return get_format(name).weight.bits, get_format(name).activation.bits
