"""Models of one detector on the CPU, inference by inference in turn: CPU time against the first's, and mAP.

Files are ONNX, or OpenVINO's own form. CPU time of the process, not of the clock: others on the machine hardly count.

python tests/benchmarks/cpu_peers.py --images DIR --annotations FILE --contract yolov8n.onnx [--seconds 60] [--accuracy]
    nncf=openvino:nncf.xml ours=openvino:ours.onnx fp32=onnxruntime-cpu:yolov8n.onnx
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from objectives.devices.cpu import cpu_facts
from objectives.runners.runner import Runner
from objectives.runtimes.openvino.devices import core, properties
from objectives.runtimes.openvino.runner import OpenVinoRunner
from objectives.runtimes.openvino.settings import OpenVinoSettings
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from objectives.tasks.detection.metrics.comparison import bootstrap_difference
from objectives.tasks.detection.predict import predict
from search_spaces.model_graph import ModelGraph


def opened(stack: ExitStack, where: str) -> Runner:
    """The model of ``RUNTIME:FILE``, on one thread."""
    name, _, file = where.partition(":")
    if Path(file).suffix == ".xml":
        compiled = core().compile_model(core().read_model(file), "CPU", properties(OpenVinoSettings()))
        return OpenVinoRunner(compiled)
    return stack.enter_context(open_runtime(parse_settings({"name": name})).open(Path(file))).runner


def in_turn(runners: dict[str, Runner], image: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
    """CPU seconds of every inference, the order flipped each time."""
    spent: dict[str, list[float]] = {name: [] for name in runners}
    order, begin = list(runners), time.perf_counter()
    for runner in runners.values():
        for _ in range(3):
            runner.infer(image)
    while time.perf_counter() - begin < seconds:
        for name in order:
            start = time.process_time()
            runners[name].infer(image)
            spent[name].append(time.process_time() - start)
        order.reverse()
    return {name: np.array(times) for name, times in spent.items()}


def main() -> None:
    """Prints one line per model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", metavar="NAME=RUNTIME:FILE")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--contract", type=Path, required=True, help="the unquantized ONNX file")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--accuracy", action="store_true")
    chosen = parser.parse_args()
    contract = recognise(ModelGraph(chosen.contract))
    data = load_dataset(chosen.images, chosen.annotations, "val").matched(contract.classes, contract.class_count)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        images = PreprocessedImages.build(data.images, contract.preprocessing, Path(folder))
        runners = {name: opened(stack, where) for name, _, where in (entry.partition("=") for entry in chosen.models)}
        times = in_turn(runners, images.batch(0, 1), chosen.seconds)
        first = next(iter(times))
        print(f"{cpu_facts()['cpu']}; {len(times[first])} inferences each; times are CPU time of one thread")
        found = {name: predict(runner, images, contract) for name, runner in runners.items() if chosen.accuracy}
    for name, spent in times.items():
        line = f"{name:24} {1000 * np.median(spent):8.2f} ms  ratio {np.median(spent / times[first]):.3f}"
        if found and name != first:
            gap, (low, high) = (
                np.multiply(100, value) for value in bootstrap_difference(data, found[name], found[first])
            )
            line += f"  mAP {gap:+.2f} points ({low:+.2f} to {high:+.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
