"""What refinement gains: GPTQ, block reconstruction, distillation; by model, format, images, minutes and seed.

    python tests/benchmarks/refinement.py --out DIR --images DIR --annotations FILE --calibration LIST ROW...

A ROW is ``MODEL.onnx:FORMAT:IMAGES:MINUTES:SEED`` with perhaps ``:KEY=VALUE`` of `RefinementSettings`, of
`training.RATES` or of a constant (``distil._FEATURES=0``) behind it. All quantizable layers get the format, or, where
it is a JSON file, those that this gives them; ``w3a16`` has codes of three bits, still stored in four. IMAGES of the
list are learnt on or judged by, of which the first 32 gave ranges and GPTQ; the annotated images report only. A row
that DIR holds is not made again. Rows are made side by side (``--jobs``) and scored in ONNX Runtime's CPU by other
processes meanwhile. ``--table`` prints the rows that DIR holds as Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.dialect import Dialect
from objectives.quantization.materialize import Materializer
from objectives.quantization.recovery import load_recovered, recover, save_recovered
from objectives.quantization.refined import load_refined, save_refined
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.onnxruntime.dialect import ONNXRUNTIME
from objectives.runtimes.tensorrt.dialect import WEAKLY_TYPED
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.comparison import bootstrap_difference
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import predict
from objectives.tasks.detection.predictions import Predictions
from search_spaces.allocation import Allocation
from search_spaces.formats import FORMATS, Format, Number
from search_spaces.model_graph import ModelGraph

THREE = Format("w3a16", replace(Number.INT4, name="int3", least=-4.0, largest=3.0), Number.FP16)
FORMATS[THREE.name] = THREE
STARTED_FROM = 32  # images of ranges and GPTQ, as a study has them
WEIGHTS = WeightSettings("auto")


@dataclass(frozen=True)
class Row:
    """One line of the table; `format` is a format or the path of a scheme, `extra` overrides settings."""

    model: Path
    format: str
    images: int
    minutes: float
    seed: int
    extra: tuple[str, ...] = ()

    @staticmethod
    def of(text: str) -> Row:
        model, fmt, images, minutes, seed, *extra = text.split(":")
        return Row(Path(model), fmt, int(images), float(minutes), int(seed), tuple(extra))

    @property
    def name(self) -> str:
        parts = (
            self.model.stem,
            Path(self.format).stem,
            str(self.images),
            f"{self.minutes:g}",
            str(self.seed),
            *self.extra,
        )
        return "_".join(part.replace("=", "-") for part in parts)

    def allocation(self, graph: ModelGraph) -> Allocation:
        if self.format in FORMATS:
            return Allocation.uniform([layer.name for layer in graph.quantizable], self.format)
        return Allocation.of(json.loads(Path(self.format).read_text()))

    @property
    def formats(self) -> set[str]:
        return {fmt for _, fmt in self.allocation(ModelGraph(self.model)).items}

    @property
    def dialect(self) -> Dialect:
        return WEAKLY_TYPED if self.format == "int8" else ONNXRUNTIME


@dataclass(frozen=True)
class Work:
    """Where everything lies."""

    out: Path
    images: str
    annotations: str
    calibration: Path
    device: str
    threads: int


def _calibration(work: Work, graph: ModelGraph, count: int) -> PreprocessedImages:
    records = load_calibration(work.calibration, count).images
    return PreprocessedImages.build(records, recognise(graph).preprocessing, work.out / "cache")


def prepare(work: Work, model: Path, formats: set[str]) -> None:
    """Ranges and GPTQ's weights of one model, once."""
    graph, folder = ModelGraph(model), work.out / model.stem
    folder.mkdir(parents=True, exist_ok=True)
    images = _calibration(work, graph, STARTED_FROM)
    if not (folder / "calibration.json").exists():
        (folder / "calibration.json").write_text(calibrate(graph, images.singles(), "percentile").to_json())
    for fmt in sorted(formats):
        path = folder / f"{fmt}.npz"
        if not path.exists():
            pairs = [(x, FORMATS[fmt]) for x in graph.quantizable if WEIGHTS.recovers(x, FORMATS[fmt])]
            save_recovered(path, recover(graph, lambda: islice(images.singles(), STARTED_FROM), pairs, WEIGHTS))


def _materializer(work: Work, row: Row, stage: str = "") -> tuple[Materializer, Allocation]:
    graph, folder = ModelGraph(row.model), work.out / row.model.stem
    table = CalibrationTable.from_json((folder / "calibration.json").read_text())
    allocation = row.allocation(graph)
    recovered = {key: one for fmt in row.formats for key, one in load_recovered(folder / f"{fmt}.npz").items()}
    refined = {stage: load_refined(work.out / row.name / stage)} if stage else {}
    made = Materializer(graph, table, row.dialect, WEIGHTS, recovered, refined)
    return made, replace(allocation, numbers=stage)


def make(work: Work, row: Row) -> str:
    """Refines one row."""
    import torch

    from objectives.refinement import training
    from objectives.refinement.refine import RefinementSettings, refine

    torch.set_num_threads(work.threads)
    materializer, allocation = _materializer(work, row)
    begun = RefinementSettings(minutes=row.minutes, device=work.device, seed=row.seed, steps=100_000)
    changes: dict[str, Any] = {}
    for text in row.extra:
        key, value = text.split("=")
        if "." in key:
            module = import_module(f"objectives.refinement.{key.split('.')[0]}")
            setattr(module, key.split(".")[1], float(value))
        elif key in training.RATES:
            training.RATES[key] = float(value)
        else:
            changes[key] = type(getattr(begun, key))(value)
    settings = replace(begun, **changes)
    graph = materializer.graph
    images = _calibration(work, graph, row.images)
    lines: list[str] = []
    folder = work.out / row.name
    folder.mkdir(exist_ok=True)

    def say(line: str) -> None:
        lines.append(line)
        (folder / "log.txt").write_text("\n".join(lines) + "\n")

    found = refine(materializer, WEIGHTS, allocation, recognise(graph), images, settings, say)
    for stage in found.stages:
        (folder / stage.name).mkdir(exist_ok=True)
        save_refined(folder / stage.name, stage.refined)
    peak = torch.cuda.max_memory_allocated() / 2**30 if work.device != "cpu" else 0.0
    facts = {
        "divergence": found.divergence,
        "stages": [{"name": s.name, "divergence": s.divergence, "seconds": s.seconds} for s in found.stages],
        "best": found.best.name if found.best else "",
        "gpu_gib": peak,
    }
    (folder / "made.json").write_text(json.dumps(facts, indent=1))
    return row.name


def _three(graph: ModelGraph, allocation: Allocation) -> float:
    """The bits of the average weight that codes of three bits leave empty where four are stored."""
    weights = {layer.name: math.prod(graph.initializers[layer.weight].shape) for layer in graph.quantizable}
    return sum(weights[name] for name, fmt in allocation.items if fmt == THREE.name) / sum(weights.values())


@cache
def _evaluation(work: Work, model: Path) -> tuple[CocoDataset, PreprocessedImages, Predictions]:
    dataset, graph = load_dataset(work.images, work.annotations), ModelGraph(model)
    contract = recognise(graph)
    images = PreprocessedImages.build(dataset.images, contract.preprocessing, work.out / "cache")
    with OnnxRuntimeRunner(model, threads=1) as runner:
        return dataset, images, predict(runner, images, contract, workers=work.threads)


def rate(work: Work, row: Row, stage: str) -> dict[str, Any]:
    """mAP of one artifact, with its paired difference; scored once."""
    materializer, allocation = _materializer(work, row, stage)
    artifact = materializer.materialize(allocation)
    path = work.out / "scores" / f"{row.model.stem}-{hashlib.sha256(artifact.data).hexdigest()[:24]}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    dataset, images, expected = _evaluation(work, row.model)
    with OnnxRuntimeRunner(artifact.engine_model, threads=1) as runner:
        got = predict(runner, images, recognise(materializer.graph), workers=work.threads)
    difference, (low, high) = bootstrap_difference(dataset, got, expected)
    bits = artifact.size.average_weight_bits - _three(materializer.graph, allocation)
    found = {"map": score(dataset, got).map_50_95, "fp32": score(dataset, expected).map_50_95}
    found |= {"points": 100 * difference, "low": 100 * low, "high": 100 * high, "bits": bits}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def rate_all(work: Work, row: Row) -> str:
    """Scores the row's start and each of its stages."""
    made = json.loads((work.out / row.name / "made.json").read_text())
    scores = {"start": rate(work, row, "")} | {one["name"]: rate(work, row, one["name"]) for one in made["stages"]}
    (work.out / row.name / "scores.json").write_text(json.dumps(scores, indent=1))
    return line(work, row)


def line(work: Work, row: Row) -> str:
    """One line of the table."""
    made = json.loads((work.out / row.name / "made.json").read_text())
    path = work.out / row.name / "scores.json"
    scores = json.loads(path.read_text()) if path.exists() else {}
    seconds = {one["name"]: one["seconds"] for one in made["stages"]}
    gone = {"start": made["divergence"]} | {one["name"]: one["divergence"] for one in made["stages"]}

    def cell(stage: str) -> str:
        if stage not in gone:
            return "-"
        points = "?"
        if stage in scores:
            points = "{points:+.2f} ({low:+.1f} to {high:+.1f})".format(**scores[stage])
        return f"{points}, {gone[stage]:.4f}"

    cells = [row.model.stem, Path(row.format).stem, str(row.images), str(row.seed), " ".join(row.extra)]
    cells += [cell("start"), cell("reconstruction"), cell("distillation"), made["best"] or "start"]
    cells += [f"{max(seconds.values(), default=0) / 60:.1f}", f"{made['gpu_gib']:.1f}"]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| model | format | images | seed | settings | GPTQ: points (95 %), divergence | + reconstruction | + distillation "
    "| kept | minutes | GPU GiB |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=Row.of, metavar="ROW")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="rows made at once")
    parser.add_argument("--threads", type=int, default=2, help="of one process")
    parser.add_argument("--raters", type=int, default=2, help="artifacts scored at once")
    parser.add_argument("--no-scores", action="store_true", help="make the rows only")
    parser.add_argument("--table", action="store_true", help="print what DIR holds")
    options = parser.parse_args()
    rows: list[Row] = options.rows
    work = Work(
        options.out,
        options.images,
        options.annotations,
        options.calibration,
        options.device,
        options.threads,
    )
    if options.table:
        print("\n".join([HEAD, *(line(work, row) for row in rows if (work.out / row.name / "made.json").exists())]))
        return
    begun = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(options.jobs, mp_context=spawn) as makers,
        ProcessPoolExecutor(options.raters, mp_context=spawn) as raters,
    ):
        models = {row.model: set().union(*(x.formats for x in rows if x.model == row.model)) for row in rows}
        list(raters.map(prepare, [work] * len(models), models, models.values()))
        print(f"prepared, {time.monotonic() - begun:.0f} s", HEAD, sep="\n", flush=True)
        waiting = [row for row in rows if not (work.out / row.name / "made.json").exists()]
        made = {makers.submit(make, work, row): row for row in waiting}
        rated = []
        for row in rows:
            if row not in waiting and not options.no_scores:
                rated.append(raters.submit(rate_all, work, row))
        for future in as_completed(made):
            if future.exception() is not None:
                print(f"{made[future].name}: {future.exception()!r}", flush=True)
            elif options.no_scores:
                print(line(work, made[future]), flush=True)
            else:
                rated.append(raters.submit(rate_all, work, made[future]))
        for score_of in as_completed(rated):
            print(score_of.result(), flush=True)
    print(f"{time.monotonic() - begun:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
