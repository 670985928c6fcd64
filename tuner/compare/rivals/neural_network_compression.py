"""NNCF's post-training int8 of a run's ONNX: ``nncf:fast``, ``nncf:full``, ``nncf:accuracy-control[:POINTS]``."""

from __future__ import annotations

import json
import math
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from objectives.quantization.decoding import decoding
from objectives.runners.interpreter import environment
from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predict import predict
from search_spaces.errors import InputError, nearest
from search_spaces.tools import within_memory
from tuner.compare.rivals.rival import Question, Rival
from tuner.prepare.images import data_of, ensure_images

#: How the environment is made; NNCF's pins are not ours.
INSTALL = 'python3 -m venv nncf && nncf/bin/pip install nncf "onnx<1.22" onnxruntime'
VARIABLE = "TUNER_NNCF_PYTHON"
_WORKER = Path(__file__).with_name("nncf_worker.py")
# What NNCF is asked for: its bias correction, and whether it takes layers out of int8 until the accuracy is kept.
_MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "fast": ("fast bias correction", {"fast": True}),
    "full": ("full bias correction", {"fast": False}),
    "accuracy-control": ("accuracy control", {"fast": True, "most": 1.0}),
}


class Nncf(Rival):
    """In its own environment, which the variable ``TUNER_NNCF_PYTHON`` names.

    Accuracy control takes layers out of int8 until mAP50-95 of the run's search images has fallen by at most `POINTS`
    (1, as NNCF has it); NNCF asks for it, and we score its models in ONNX Runtime, which it computes in itself.
    """

    def __init__(self, argument: str) -> None:
        mode, _, points = argument.partition(":")
        if (mode or "fast") not in _MODES:
            known = ", ".join(_MODES)
            raise InputError(f"nncf:{argument}: is none of {known}{nearest(mode, _MODES)}; write nncf:fast")
        named, how = _MODES[mode or "fast"]
        self.how = dict(how)
        if points:
            if "most" not in how:
                raise InputError(f"nncf:{argument}: takes nothing behind its mode; write nncf:{mode}")
            self.how["most"] = _points(argument, points)
            named = f"{named} to {self.how['most']:g}"
        self.title = f"NNCF int8 {named}"
        self.folder = "-".join(["nncf", mode or "fast", *([points] if points else [])])

    def check(self, question: Question) -> None:
        """Needs its environment; and labels, to keep an accuracy."""
        nncf_python()
        if "most" in self.how and not data_of(question.inputs).search.labelled:
            raise InputError("nncf:accuracy-control: keeps mAP, and the study has no labels; write nncf:fast")

    def answer(self, question: Question, folder: Path) -> Path:
        """Quantizes the run's ONNX with its calibration images; its own words lie in ``nncf.log``."""
        graph, images = question.inputs.graph, question.calibration()
        folder.mkdir(parents=True)
        paths = {name: (folder / name).resolve() for name in ("pixels.npy", "model.onnx", "asked.onnx", "request.json")}
        np.save(paths["pixels.npy"], images.pixels)
        preprocessing = images.preprocessing
        request = {
            "model": str(graph.path.resolve()),
            "input": graph.input,
            "pixels": str(paths["pixels.npy"]),
            "feed": {"divisor": preprocessing.divisor, "mean": preprocessing.mean, "std": preprocessing.std},
            "ignored": sorted(decoding(graph)),
            **self.how,
            "scored": len(data_of(question.inputs).search) if "most" in self.how else 0,
            "asked": str(paths["asked.onnx"]),
            "out": str(paths["model.onnx"]),
        }
        paths["request.json"].write_text(json.dumps(request, indent=1) + "\n", encoding="utf-8")
        with question.steps(self.title, 1), (folder / "nncf.log").open("w+", encoding="utf-8") as log:
            code = self._run(question, paths["request.json"], log.fileno())
            log.seek(0)
            said = [line.strip() for line in log if line.strip()]
        paths["pixels.npy"].unlink()
        paths["asked.onnx"].unlink(missing_ok=True)
        if code != 0:
            raise InputError(f"NNCF failed: {said[-1] if said else f'exit code {code}'}")
        return paths["model.onnx"]

    def _run(self, question: Question, request: Path, log: int) -> int:
        """Runs NNCF, and scores what it asks for; returns its exit code."""
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        command: list[str | Path] = [nncf_python(), _WORKER, request]
        pipe = subprocess.PIPE
        with (
            _Judge(question) as judge,
            subprocess.Popen(command, env=own, stdin=pipe, stdout=pipe, stderr=log, text=True) as worker,
            within_memory(worker, "NNCF"),
        ):
            assert worker.stdin is not None and worker.stdout is not None
            for line in worker.stdout:
                asked = json.loads(line)
                worker.stdin.write(f"{judge.map_50_95(Path(asked['model']), asked['new'], asked['rows'])}\n")
                worker.stdin.flush()
        return worker.returncode


class _Judge:
    """Scores models on a run's search images.

    Args:
        question: The run.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._open = ExitStack()

    def __enter__(self) -> _Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def map_50_95(self, model: Path, new: bool, rows: list[int]) -> float:
        """Of a model on the images at `rows`; 0 where they hold no object.

        Args:
            model: ONNX.
            new: Whether the file is another one than at the last call.
            rows: Positions among the search images.
        """
        data = data_of(self._question.inputs)
        if new:
            self._open.close()
            self._images = ensure_images(self._question.inputs, self._question.run, data.search.images)
            self._runner = self._open.enter_context(
                OnnxRuntimeRunner(model, self._question.inputs.runtime.settings.threads)
            )
        found = predict(self._runner, self._images, data.contract, rows=rows)
        gained = score(data.search.only(set(found.ids)), found).map_50_95
        return max(0.0, gained) if math.isfinite(gained) else 0.0


def nncf_python() -> Path:
    """The interpreter of NNCF's environment.

    Raises:
        RuntimeUnavailable: It is not named, or NNCF is not installed there.
    """
    return environment(None, VARIABLE, VARIABLE, "import nncf, onnx, onnxruntime", INSTALL)


def _points(argument: str, text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < math.inf:
        raise InputError(f"nncf:{argument}: must be points of mAP, e.g. nncf:accuracy-control:0.2")
    return points
