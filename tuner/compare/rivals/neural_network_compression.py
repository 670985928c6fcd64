"""NNCF's post-training int8 of a run's ONNX: ``nncf:fast`` or ``nncf:full``, by its bias correction."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from objectives.quantization.decoding import decoding
from objectives.runners.interpreter import environment
from search_spaces.errors import InputError, nearest
from tuner.compare.rivals.rival import Question, Rival

#: How the environment is made; NNCF's pins are not ours.
INSTALL = 'python3 -m venv nncf && nncf/bin/pip install nncf "onnx<1.22" onnxruntime'
VARIABLE = "TUNER_NNCF_PYTHON"
_WORKER = Path(__file__).with_name("nncf_worker.py")
_MODES = {"fast": True, "full": False}


class Nncf(Rival):
    """In its own environment, which the variable ``TUNER_NNCF_PYTHON`` names."""

    def __init__(self, argument: str) -> None:
        self.mode = argument or "fast"
        if self.mode not in _MODES:
            hint = nearest(argument, _MODES)
            raise InputError(f"nncf:{argument}: its bias correction is {' or '.join(_MODES)}{hint}; write nncf:fast")
        self.title = f"NNCF int8 {self.mode} bias correction"
        self.folder = f"nncf-{self.mode}"

    def check(self, question: Question) -> None:
        """Needs its environment."""
        nncf_python()

    def answer(self, question: Question, folder: Path) -> Path:
        """Quantizes the run's ONNX with its calibration images; its own words lie in ``nncf.log``."""
        graph, images = question.inputs.graph, question.calibration()
        folder.mkdir(parents=True)
        paths = {name: str((folder / name).resolve()) for name in ("pixels.npy", "model.onnx", "request.json")}
        np.save(paths["pixels.npy"], images.pixels)
        how = images.preprocessing
        request = {
            "model": str(graph.path.resolve()),
            "input": graph.input,
            "pixels": paths["pixels.npy"],
            "feed": {"divisor": how.divisor, "mean": how.mean, "std": how.std},
            "ignored": sorted(decoding(graph)),
            "fast": _MODES[self.mode],
            "out": paths["model.onnx"],
        }
        Path(paths["request.json"]).write_text(json.dumps(request, indent=1) + "\n", encoding="utf-8")
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        command: list[str | Path] = [nncf_python(), _WORKER, paths["request.json"]]
        with question.steps(self.title, 1), (folder / "nncf.log").open("w+", encoding="utf-8") as log:
            done = subprocess.run(command, env=own, stdout=log, stderr=subprocess.STDOUT, check=False)
            log.seek(0)
            said = [line.strip() for line in log if line.strip()]
        Path(paths["pixels.npy"]).unlink()
        if done.returncode != 0:
            raise InputError(f"NNCF failed: {said[-1] if said else f'exit code {done.returncode}'}")
        return Path(paths["model.onnx"])


def nncf_python() -> Path:
    """The interpreter of NNCF's environment.

    Raises:
        RuntimeUnavailable: It is not named, or NNCF is not installed there.
    """
    return environment(None, VARIABLE, VARIABLE, "import nncf, onnx, onnxruntime", INSTALL)
