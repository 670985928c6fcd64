"""Runs several sensitivity methods on one study, measures single layers, and compares."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from objectives.runtimes.opening import open_model
from objectives.runtimes.registry import default_runtime
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import Detector
from objectives.tasks.detection.metrics.agreement import agreement
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predictions import Predictions
from search_spaces.allocation import Allocation
from search_spaces.comparison import Comparison, MeasuredDrop, Ranking, compare, sample_layers
from search_spaces.durable import write_durably
from search_spaces.errors import InputError, nearest
from search_spaces.sensitivity import SensitivityTable
from tuner.prepare.calibration import ensure_calibration
from tuner.prepare.images import data_of, ensure_images
from tuner.prepare.materializers import float_materializer
from tuner.prepare.predicting import detect
from tuner.prepare.sensitivity import onnx_sensitivity
from tuner.prepare.sensitivity_sources import inc_table, modelopt_tables
from tuner.prepare.weights import ensure_weights
from tuner.report.methods import comparison_figure
from tuner.study.config import StudyConfig
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json, read_text
from tuner.terminal.progress import Steps, silent

_Row = tuple[str, str, float, float, float]  # layer, format, drop, disagreement, seconds
METHODS = ("onnx", "modelopt-gradient", "modelopt-kl", "inc")


def compare_methods(
    inputs: Inputs, run: RunFolder, methods: Sequence[str], fmt: str | None, layers: int, steps: Steps = silent
) -> Comparison:
    """Compares sensitivity methods; what the run folder holds already is not measured again.

    Args:
        inputs: The study.
        run: Where ``comparison.{md,json,html}`` are written.
        methods: Of `METHODS`, at least two.
        fmt: Format of the measured drops; None for the space's with the fewest bits.
        layers: How many layers to measure, at least 3.
        steps: Shows progress.

    Raises:
        InputError: A method or format is unknown, or fewer than two methods are named.
        RuntimeUnavailable: What a method needs is missing.
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--method {method!r}: is not one of {', '.join(METHODS)}{nearest(method, METHODS)}")
    if len(set(methods)) < 2:
        raise InputError(f"--method: name at least two of {', '.join(METHODS)}")
    if not data_of(inputs).search.labelled:
        raise InputError(
            "data.annotations: missing; methods are compared with measured drops of mAP, which need labels"
        )
    formats = inputs.space.quantized_formats
    if fmt in inputs.dropped:
        wanted = "gains nothing in its objectives; add weight_mib to them"
        raise InputError(f"--format {fmt!r}: was left out of the study's space: it {wanted}")
    if fmt is not None and fmt not in formats:
        raise InputError(f"--format {fmt!r}: is not in the study's space ({', '.join(formats)}){nearest(fmt, formats)}")
    chosen = fmt or min(formats, key=_bits)
    tables = [_rankings(method, _table(inputs, run, method, steps)) for method in dict.fromkeys(methods)]
    sample = sample_layers(next((r for r in tables[0] if r.format == chosen), tables[0][0]), layers)
    drops = _measure(inputs, run, sample, chosen, steps)
    images = len(data_of(inputs).search)
    found = compare(inputs.graph.digest, images, chosen, tables, drops)
    folder = run.path
    write_durably(run.comparison, json.dumps(found.to_json(), indent=1) + "\n")
    write_durably(folder / "comparison.md", found.to_markdown())
    write_durably(folder / "comparison.html", comparison_figure(found).to_html(include_plotlyjs=True))
    return found


def kept_table(config: StudyConfig, run: RunFolder, method: str) -> Path:
    """Where a method's table is kept, named by the settings that decide it and that are not the run's identity."""
    settings = config.sensitivity.model_dump(exclude={"method", "file", "scores", "inc_python"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return run.path / "methods" / f"{method}-{digest}.json"


def _table(inputs: Inputs, run: RunFolder, method: str, steps: Steps) -> SensitivityTable:
    path = kept_table(inputs.config, run, method)
    if path.is_file():
        return SensitivityTable.from_json(read_text(path))
    if method == "onnx":
        table = onnx_sensitivity(inputs, run, steps)
    elif method == "inc":
        table = inc_table(inputs, run, steps)
    else:
        table = modelopt_tables(inputs, run, (method.removeprefix("modelopt-"),), steps)[0]
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


def _measure(inputs: Inputs, run: RunFolder, layers: Sequence[str], fmt: str, steps: Steps) -> list[MeasuredDrop]:
    """Scores one layer at a time in `fmt`, in ONNX Runtime's CPU; each is kept when it is done."""
    path = run.path / "methods" / "drops.json"
    kept = {row[:2]: row for row in read_json(path, list[_Row])} if path.exists() else {}
    missing = [layer for layer in layers if (layer, fmt) not in kept]
    if missing:
        data, graph = data_of(inputs), inputs.graph
        calibration, weights = ensure_calibration(inputs, run, steps), ensure_weights(inputs, run, steps)
        made = float_materializer(inputs, graph, calibration, weights)
        images = ensure_images(inputs, run, data.search.images, steps)
        reference = _predict(graph.path, images, data.contract)
        base = score(data.search, reference).map_50_95
        with steps(f"measuring single layers in {fmt}", len(missing)) as done:
            for count, layer in enumerate(missing, 1):
                started = time.perf_counter()
                found = _predict(made.materialize(Allocation.of({layer: fmt})).data, images, data.contract)
                drop = base - score(data.search, found).map_50_95
                row = (layer, fmt, drop, 1 - agreement(found, reference), time.perf_counter() - started)
                kept[layer, fmt] = row
                write_durably(path, json.dumps(list(kept.values())))
                done(count)
    return [MeasuredDrop(*kept[layer, fmt]) for layer in layers]


def _predict(model: bytes | Path, images: PreprocessedImages, contract: Detector) -> Predictions:
    cpu = default_runtime()
    with open_model(cpu, model, None) as runner:
        return detect(cpu, runner, images, contract)


def _bits(name: str) -> tuple[int, int]:
    from search_spaces.formats import get_format

    return get_format(name).weight.bits, get_format(name).activation.bits
