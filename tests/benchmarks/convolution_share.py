"""Share of the best int8 convolution of this machine that a whole detector reaches, both timed in turn in one run.

The best is looked for over chains of equal Convs with ReLU, whose inner ones read and write codes alone; the detector's
rate is the multiply-accumulates of all its Convs against the time of the whole inference. CPU time, one thread.

python tests/benchmarks/convolution_share.py yolov10s.onnx int8.onnx --runtime openvino
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from objectives.devices.cpu import cpu_facts
from objectives.quantization.calibration import calibrate
from objectives.quantization.materialize import Materializer
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.runtimes.runtime import Runtime
from search_spaces.allocation import Allocation
from search_spaces.model_graph import ModelGraph

CHANNELS, SIZES, KERNELS = (64, 128, 256, 512), (20, 40, 80), (1, 3)
DEPTH = 6
LARGEST = 6e9  # multiply-accumulates of a chain, so that a round stays short


def chain(folder: Path, channels: int, size: int, kernel: int) -> ModelGraph:
    """Equal Convs one behind another."""
    draw = np.random.default_rng(0)
    shape, nodes, kept = [1, channels, size, size], [], []
    for place in range(DEPTH):
        weight = draw.normal(0, (2 / channels) ** 0.5 / kernel, (channels, channels, kernel, kernel))
        kept.append(numpy_helper.from_array(weight.astype(np.float32), f"w{place}"))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [f"x{place}", f"w{place}"], [f"y{place}"], name=f"conv{place}", pads=pads)
        )
        nodes.append(helper.make_node("Relu", [f"y{place}"], [f"x{place + 1}"], name=f"relu{place}"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{DEPTH}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], kept)
    path = folder / f"{channels}x{size}x{kernel}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return ModelGraph(path)


def quantized(graph: ModelGraph, runtime: Runtime) -> Path:
    """Its int8 file."""
    image = np.random.default_rng(1).random(graph.input_shape, dtype=np.float32)
    materializer = Materializer(graph, calibrate(graph, [image], "max"), runtime.dialect())
    path = graph.path.with_suffix(".int8.onnx")
    path.write_bytes(materializer.materialize(Allocation.uniform([x.name for x in graph.quantizable], "int8")).data)
    return path


def main() -> None:
    """Prints the rate of every chain, and the detector's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, help="the unquantized ONNX file")
    parser.add_argument("int8", type=Path, help="its scheme, in the runtime's dialect")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    runtime = open_runtime(parse_settings({"name": chosen.runtime}))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = {str(chosen.int8): (ModelGraph(chosen.model), chosen.int8)}
        for shape in itertools.product(CHANNELS, SIZES, KERNELS):
            channels, size, kernel = shape
            if DEPTH * (channels * size * kernel) ** 2 <= LARGEST:
                graph = chain(Path(folder), *shape)
                files[f"{channels} channels, {size} x {size}, kernel {kernel}"] = graph, quantized(graph, runtime)
        work = {
            name: sum(layer.macs for layer in graph.layers if layer.op == "Conv") for name, (graph, _) in files.items()
        }
        images = {name: np.zeros(graph.input_shape, np.float32) for name, (graph, _) in files.items()}
        runners = {name: stack.enter_context(runtime.open(path)).runner for name, (_, path) in files.items()}
        spent: dict[str, list[float]] = {name: [] for name in files}
        begin = time.perf_counter()
        while time.perf_counter() - begin < chosen.seconds:
            for name, runner in runners.items():
                start = time.process_time()
                runner.infer(images[name])
                spent[name].append(time.process_time() - start)
    # The first inferences allocate.
    rates = {name: work[name] / np.median(times[2:]) / 1e9 for name, times in spent.items()}
    own, *others = rates
    best = max(others, key=rates.__getitem__)
    for name in (own, *sorted(others, key=rates.__getitem__)):
        print(f"{name:50} {rates[name]:8.1f} GMAC/s")
    print(f"{cpu_facts()['cpu']}, {chosen.runtime}: {rates[own] / rates[best]:.3f} of the best ({best})")


if __name__ == "__main__":
    main()
