"""One row of `coverage.py`, in a process of its own: a JSON object on stdout, whatever the export does to us."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from objectives.quantization.calibration import CalibrationTable, calibrate
from objectives.quantization.coverage import Coverage
from objectives.quantization.materialize import Materializer
from objectives.quantization.weights import WeightSettings
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.runtimes.engine_builder import BuildError
from objectives.runtimes.registry import open_runtime, parse_settings
from objectives.tasks.detection.data.image_files import ImageRecord
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.detector import recognise
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from search_spaces.formats import get_format
from search_spaces.model_graph import ModelGraph

SIZE = (320, 320)  # of exports that leave it open
GPU = "8.9"  # the first that has fp8
IMAGES = 2


class Row:
    """What is found of one export; what fails is told in its cell."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.found: dict[str, Any] = {"name": path.stem}
        self.graph = ModelGraph(path, image_size=SIZE)
        self.found["layers"] = len(self.graph.quantizable)
        refused = Counter(str(x.reason).partition(";")[0] for x in self.graph.layers if not x.quantizable)
        self.found["refused"] = dict(refused)
        self.found["warning"] = Coverage.of(self.graph).warning
        self.cell("head", self.head)
        self.inputs = self.pixels(folder)

    def cell(self, name: str, work: Callable[[], Any]) -> None:
        """One cell; an error of ours is its line, any other is told as a fault."""
        try:
            self.found[name] = work()
        except InputError as error:
            self.found[name] = f"unsupported: {error}"
        except BuildError as error:
            self.found[name] = f"refused: {str(error).strip().splitlines()[0]}"
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self.found[name] = f"FAULT {type(error).__name__}: {lines[0][:200]}"

    def head(self) -> str:
        """The name of the head that reads it."""
        open_size = 0 in self.graph.input_shape[2:]
        return recognise(self.graph, image_size=SIZE if open_size else None).name

    def pixels(self, folder: Path) -> list[Any]:
        """Photographs-like noise, as the recognised head feeds it, else in [0, 1]."""
        draw, records = np.random.default_rng(0), []
        for number in range(IMAGES):
            coarse = draw.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            path = folder / f"{number}.png"
            cv2.imwrite(str(path), cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC))
            records.append(ImageRecord(number, path, sha256=f"{number:064}"))
        height, width = (x or y for x, y in zip(self.graph.input_shape[2:], SIZE, strict=True))
        if str(self.found["head"]).startswith(("unsupported", "FAULT")):
            return [draw.random((1, 3, height, width), dtype=np.float32) for _ in records]
        detector = recognise(self.graph, image_size=(height, width))
        return list(PreprocessedImages.build(records, detector.preprocessing, folder).singles())

    def ends(self) -> tuple[str, ...]:
        """Outputs of the last quantizable layers: behind them a selection may put rows in another order."""
        above = {name for layer in self.graph.quantizable for name, _ in self.graph.edges if name != layer.name}
        return tuple(layer.output for layer in self.graph.quantizable if layer.name not in above)

    def outputs(self, model: bytes) -> list[Any]:
        """Of the first image, the ends among them."""
        with OnnxRuntimeRunner(model, threads=1) as runner:
            found = dict(zip(runner.output_names, runner.infer(self.inputs[0]), strict=True))
        return [np.asarray(found[name], np.float64) for name in self.ends()]

    def maker(self, runtime: str, table: CalibrationTable) -> Materializer:
        """A runtime's materializer, weights rounded to the nearest."""
        settings = {"name": runtime} | ({"compute_capability": GPU} if runtime == "tensorrt-rtx" else {})
        target = open_runtime(parse_settings(settings))
        dialect = target.dialect("10.0", GPU) if runtime == "tensorrt" else target.dialect()
        return Materializer(self.graph, table, dialect, WeightSettings("rtn"))

    def scheme(self, fmt: str) -> Allocation:
        """All layers that can have the format."""
        fitting = [x.name for x in self.graph.quantizable if not x.lacks(get_format(fmt))]
        if not fitting:
            raise InputError(f"no layer can have {fmt}")
        return Allocation.uniform(fitting, fmt)

    def score(self) -> None:
        """All formats on all runtimes."""
        table = calibrate(self.graph, self.inputs, "max")
        cpu = self.maker("onnxruntime-cpu", table)
        plain = self.outputs(cpu.materialize(Allocation.of({}), self.ends()).data)
        for fmt in ("int8", "w4a16"):
            self.cell(f"ORT {fmt}", partial(self.error, cpu, fmt, plain))
        for fmt in ("int8", "fp8"):
            self.cell(f"TensorRT {fmt}", partial(self.checked, "tensorrt", table, fmt))
            self.cell(f"RTX {fmt}", partial(self.built, table, fmt))

    def error(self, maker: Materializer, fmt: str, plain: list[Any]) -> str:
        """Error at the ends over what varies there (L2), once the file was checked, loaded and run.

        What is the same at all places says nothing: the outputs of a model that was not trained are mostly its biases.
        """
        maker.materialize(self.scheme(fmt)).check()
        found = self.outputs(maker.materialize(self.scheme(fmt), self.ends()).data)
        gap = sum(float(((a - b) ** 2).sum()) for a, b in zip(found, plain, strict=True))
        error = (gap / max(sum(float((_varying(b) ** 2).sum()) for b in plain), 1e-30)) ** 0.5
        return f"{error:.3f}" if np.isfinite(error) else "FAULT not finite"

    def checked(self, runtime: str, table: CalibrationTable, fmt: str) -> str:
        """The file, checked by ONNX."""
        self.maker(runtime, table).materialize(self.scheme(fmt)).check()
        return "ok"

    def built(self, table: CalibrationTable, fmt: str) -> str:
        """Size of a real engine, MiB."""
        from objectives.runtimes.tensorrt_rtx.build import build_engine
        from objectives.runtimes.tensorrt_rtx.capability import parse_capability

        open_runtime(parse_settings({"name": "tensorrt-rtx", "compute_capability": GPU})).check_operators(self.graph)
        artifact = self.maker("tensorrt-rtx", table).materialize(self.scheme(fmt))
        artifact.check()
        plan, _ = build_engine(artifact.engine_model, parse_capability(GPU), [x.name for x in self.graph.quantizable])
        return f"{len(plan) / 2**20:.1f} MiB"


def _varying(output: Any) -> Any:
    """An output without each channel's mean; queries of a DETR that was not trained are all alike, and stay whole."""
    return output - output.mean((2, 3), keepdims=True) if output.ndim == 4 else output


def main() -> int:
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        try:
            row = Row(path, Path(folder))
            row.score()
            found = row.found
        except InputError as error:
            found = {"name": path.stem, "head": f"unsupported: {error}"}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
