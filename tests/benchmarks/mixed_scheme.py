"""A scheme of W3, W4 and W8 by size, from what each layer alone does to the model's answers.

    python tests/benchmarks/mixed_scheme.py --out DIR --calibration LIST --device cuda MODEL.onnx BITS

Each layer alone is quantized to each format, and the divergence on eight calibration images measured; no labels, and
none of the images that report. All layers begin in three bits; the widening that takes away most divergence per bit
is made until BITS on average are spent. Writes ``DIR/MODEL/mixed-BITS.json``, a format for ``refinement.py``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path

import refinement
import torch

from objectives.quantization.materialize import Materializer
from objectives.refinement.executor import Executor
from objectives.refinement.judge import Judge
from objectives.refinement.refine import last_tensors
from objectives.refinement.student import Student
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

BITS = {"w3a16": 3.5, "w4a16": 4.5, "w8a16": 8.0}  # of a weight, with its share of scales
IMAGES = 8


def scores(work: refinement.Work, model: Path) -> dict[tuple[str, str], float]:
    """Divergence of each layer alone in each format."""
    graph, found = ModelGraph(model), dict[tuple[str, str], float]()
    executor = Executor(graph, work.device)
    images = refinement._calibration(work, graph, refinement.STARTED_FROM)
    pixels = [torch.from_numpy(images.batch(k, k + 1)).to(executor.device) for k in range(IMAGES)]
    judge = Judge(executor, recognise(graph), lambda k: pixels[k], range(IMAGES), last_tensors(graph))
    for fmt in BITS:
        row = refinement.Row(model, fmt, 0, 0.0, 0)
        materializer: Materializer = refinement._materializer(work, row)[0]
        for layer in graph.quantizable:
            alone = Allocation.of({layer.name: fmt})
            found[layer.name, fmt] = judge(Student(executor, materializer, alone, refinement.WEIGHTS))
    return found


def choose(scores: Mapping[tuple[str, str], float], counts: Mapping[str, int], bits: float) -> dict[str, str]:
    """The format of each layer; `counts` are its weights."""
    chosen = dict.fromkeys(counts, "w3a16")
    room = (bits - BITS["w3a16"]) * sum(counts.values())
    while True:
        steps = [
            ((scores[name, chosen[name]] - scores[name, fmt]) / cost, name, fmt, cost)
            for name in counts
            for fmt in BITS
            if 0 < (cost := (BITS[fmt] - BITS[chosen[name]]) * counts[name]) <= room
        ]
        gain, name, fmt, cost = max(steps, default=(0.0, "", "", 0.0))
        if gain <= 0:
            return chosen
        chosen[name], room = fmt, room - cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("bits", type=float)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    work = refinement.Work(options.out, "", "", options.calibration, options.device, 2)
    refinement.prepare(work, options.model, set(BITS))
    graph = ModelGraph(options.model)
    counts = {layer.name: math.prod(graph.initializers[layer.weight].shape) for layer in graph.quantizable}
    scheme = choose(scores(work, options.model), counts, options.bits)
    path = options.out / options.model.stem / f"mixed-{options.bits:g}.json"
    path.write_text(json.dumps(scheme, indent=1))
    print(path, {fmt: list(scheme.values()).count(fmt) for fmt in BITS})


if __name__ == "__main__":
    main()
