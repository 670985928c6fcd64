"""ModelOpt's ONNX post-training quantization of a run's model: ``modelopt:MODE:METHOD``."""

from __future__ import annotations

from pathlib import Path

from objectives.torch_models.onnx_ptq import check_choice, quantize_onnx
from objectives.torch_models.packages import require
from tuner.compare.rivals.rival import Question, Rival

_DEFAULT_METHOD = "entropy"


class ModelOpt(Rival):
    """By its own command line, at ``max`` or ``entropy`` ranges."""

    def __init__(self, argument: str) -> None:
        self.mode, _, method = argument.partition(":")
        self.method = method or _DEFAULT_METHOD
        check_choice(self.mode, self.method)
        self.title = f"ModelOpt ONNX {self.mode} {self.method}"
        self.folder = f"modelopt-onnx-{self.mode}-{self.method}"

    def check(self, question: Question) -> None:
        """Needs the `torch` extra."""
        require("modelopt.onnx", "ModelOpt's ONNX quantization")

    def answer(self, question: Question, folder: Path) -> Path:
        """Quantizes the run's ONNX."""
        pixels = question.calibration()
        with question.steps(self.title, 1):
            return quantize_onnx(question.inputs.graph.path, pixels, self.mode, self.method, folder).model
